"""The family of errors that a caller may see, each with its code and status.

Nothing here knows HTTP libraries: the views turn these into the envelope
``{"code", "message", "details"}``, the commands into a line on stderr.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ServiceError(Exception):
    """An error with a public message; ``details`` must be safe to show."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error."""
        return {}


class ValidationError(ServiceError):
    """The input is wrong; the message says what to change."""

    code = "VALIDATION_ERROR"
    status = 400


class UnauthorizedError(ServiceError):
    """No usable token. Without ``invalid`` nothing was presented at all (RFC 6750, 3.1)."""

    code = "UNAUTHORIZED"
    status = 401

    def __init__(self, message: str, *, invalid: bool = True) -> None:
        super().__init__(message)
        self.invalid = invalid

    @property
    def headers(self) -> dict[str, str]:
        if not self.invalid:
            return {"WWW-Authenticate": 'Bearer realm="analytics"'}
        challenge = f'Bearer error="invalid_token", error_description="{self.message}"'
        return {"WWW-Authenticate": challenge}


class ForbiddenError(ServiceError):
    """A valid token that may not do this."""

    code = "FORBIDDEN"
    status = 403

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}


class PayloadTooLargeError(ServiceError):
    """More events or bytes than one batch may have; ``details`` names the limit."""

    code = "PAYLOAD_TOO_LARGE"
    status = 413


class UnsupportedMediaTypeError(ServiceError):
    """A content type or encoding that is not read here."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    status = 415


class UnavailableError(ServiceError):
    """The database is away or too busy; the same request may be sent again."""

    code = "SERVICE_UNAVAILABLE"
    status = 503

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


class SettingsError(ServiceError):
    """An unusable setting; the message starts with the variable's name."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable} {problem}")
        self.variable = variable


class RefusedError(ServiceError):
    """A command that would do harm here, and why."""

    code = "CONFLICT"
    status = 409
