"""The family of errors that a caller may see, each with its code and status.

Nothing here knows HTTP libraries: the views turn these into the envelope
``{"code", "message", "details"}``, the commands into a line on stderr.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

# The code of each status, and when it is answered.
CODES = {
    400: ("VALIDATION_ERROR", "a parameter or the body is wrong"),
    401: ("UNAUTHORIZED", "no token, or none that is valid"),
    403: ("FORBIDDEN", "the token lacks the scope or a usable organization"),
    404: ("NOT_FOUND", "there is no such route"),
    405: ("METHOD_NOT_ALLOWED", "the route does not take this method"),
    408: ("VALIDATION_ERROR", "nothing came for too long in the middle of the request"),
    409: ("CONFLICT", "it would do harm here"),
    413: ("PAYLOAD_TOO_LARGE", "the body or the batch is too large"),
    415: ("UNSUPPORTED_MEDIA_TYPE", "the content type or encoding is not one that is read"),
    429: ("RATE_LIMIT_EXCEEDED", "too many requests of this organization"),
    500: ("INTERNAL_ERROR", "an unexpected error occurred"),
    503: ("SERVICE_UNAVAILABLE", "the database or the identity provider's keys are away"),
}


class ServiceError(Exception):
    """An error with a public message; ``details`` must be safe to show."""

    status: ClassVar[int] = 500

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    @property
    def code(self) -> str:
        """The error's code in the envelope."""
        return CODES[self.status][0]

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error."""
        return {}


class ValidationError(ServiceError):
    """The input is wrong; the message says what to change."""

    status = 400


class UnauthorizedError(ServiceError):
    """No usable token. Without ``invalid`` nothing was presented at all (RFC 6750, 3.1)."""

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

    status = 403

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}


class PayloadTooLargeError(ServiceError):
    """More events or bytes than one batch may have; ``details`` names the limit."""

    status = 413


class UnsupportedMediaTypeError(ServiceError):
    """A content type or encoding that is not read here."""

    status = 415


class RateLimitError(ServiceError):
    """More requests than a tenant may send; ``seconds`` until the next is let through."""

    status = 429

    def __init__(self, seconds: int) -> None:
        super().__init__("too many requests")
        self.seconds = seconds

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.seconds)}


class UnavailableError(ServiceError):
    """The database is away or too busy; the same request may be sent again."""

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

    status = 409
