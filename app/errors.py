"""Errors that callers see, each with its code and HTTP status.

The web sends an error as the envelope ``{"code", "message", "details"}``. A command prints it as a
line on stderr. This module imports no HTTP library.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

# The code of each status, and the reason for a response with this status.
CODES = {
    400: ("VALIDATION_ERROR", "a parameter or the body is wrong"),
    401: ("UNAUTHORIZED", "the access token or the key is missing or invalid"),
    403: ("FORBIDDEN", "the token or the key lacks the scope or a usable organization"),
    404: ("NOT_FOUND", "there is no such route"),
    405: ("METHOD_NOT_ALLOWED", "the route does not take this method"),
    408: ("VALIDATION_ERROR", "the body did not arrive in time"),
    409: ("CONFLICT", "the request conflicts with what is stored"),
    413: ("PAYLOAD_TOO_LARGE", "the body or the batch is too large"),
    415: ("UNSUPPORTED_MEDIA_TYPE", "the content type or encoding is not supported"),
    429: ("RATE_LIMIT_EXCEEDED", "the organization sent too many requests"),
    500: ("INTERNAL_ERROR", "an unexpected error occurred"),
    503: (
        "SERVICE_UNAVAILABLE",
        "the database or the identity provider's keys are unavailable, or the service is busy",
    ),
}


class ServiceError(Exception):
    """An error with a public message; ``details`` are public as well.

    ``cause`` is for the log only: fixed words that hold no value of the caller.
    """

    status: ClassVar[int] = 500

    def __init__(
        self, message: str, details: Mapping[str, Any] | None = None, *, cause: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.cause = cause

    @property
    def code(self) -> str:
        """The error's code in the envelope."""
        return CODES[self.status][0]

    @property
    def headers(self) -> dict[str, str]:
        """Response headers for this error."""
        return {}


class ValidationError(ServiceError):
    """Invalid input; the message says what to change."""

    status = 400


class UnauthorizedError(ServiceError):
    """A missing or invalid token; ``invalid=False`` means that it is missing (RFC 6750, 3.1)."""

    status = 401

    def __init__(self, message: str, *, invalid: bool = True, cause: str | None = None) -> None:
        super().__init__(message, cause=cause)
        self.invalid = invalid

    @property
    def headers(self) -> dict[str, str]:
        if not self.invalid:
            return {"WWW-Authenticate": 'Bearer realm="analytics"'}
        challenge = f'Bearer error="invalid_token", error_description="{self.message}"'
        return {"WWW-Authenticate": challenge}


class ForbiddenError(ServiceError):
    """A valid token without the permission for this request."""

    status = 403

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}


class NotFoundError(ServiceError):
    """Nothing has this id, or only another organization's thing has it."""

    status = 404


class RequestTimeoutError(ServiceError):
    """A request whose body did not arrive in time."""

    status = 408


class PayloadTooLargeError(ServiceError):
    """Too many events or bytes in one batch; ``details`` names the limit."""

    status = 413


class UnsupportedMediaTypeError(ServiceError):
    """A content type or encoding that is not supported."""

    status = 415


class RateLimitError(ServiceError):
    """A tenant or a client sent too many requests; the next one is allowed after ``seconds``."""

    status = 429

    def __init__(self, seconds: int, *, cause: str | None = None) -> None:
        super().__init__(f"too many requests; try again in {seconds} s", cause=cause)
        self.seconds = seconds

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.seconds)}


class UnavailableError(ServiceError):
    """The database is unavailable or too busy; the client may repeat the request."""

    status = 503

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


class SettingsError(ServiceError):
    """An invalid setting; the message starts with the variable's name."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable} {problem}")
        self.variable = variable


class RefusedError(ServiceError):
    """A refused command; the message says why."""

    status = 409
