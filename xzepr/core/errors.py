"""Errors that callers receive, each with a stable code. Only `api/errors.py` knows their HTTP statuses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class Problem(Exception):
    """An error that the caller can act on. Any other exception that ends a request is a bug of the hub."""

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after
        """Seconds after which the same call may succeed; None if waiting does not help."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One error in an input."""

    field: str
    """The field (`name`), or a JSON pointer (RFC 6901) below it (`payload/size`)."""
    message: str


class InvalidInput(Problem):
    """The input breaks rules; `violations` lists each breach that was found."""

    code = "INVALID_INPUT"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(v.message for v in violations), field=violations[0].field)
        self.violations = tuple(violations)

    @classmethod
    def one(cls, field: str, message: str) -> "InvalidInput":
        """Returns an error about a single field."""
        return cls((Violation(field, message),))


class NotFound(Problem):
    """No object of this type has this id, or the caller may not know that it exists."""

    code = "NOT_FOUND"

    def __init__(self, noun: str, id: str, *, field: str | None = None) -> None:
        super().__init__(f"there is no {noun} {id!r}", field=field)
        self.noun = noun
        self.id = id


class Conflict(Problem):
    """The input is valid but contradicts stored data."""

    code = "CONFLICT"


class Unauthenticated(Problem):
    """The request has no credentials and needs some."""

    code = "UNAUTHENTICATED"

    def __init__(self, message: str = "sign in first: send a token or an API key") -> None:
        super().__init__(message)


class InvalidCredentials(Problem):
    """The user name or the password is wrong. The message is the same for an unknown user."""

    code = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("user name or password is wrong")


class InvalidToken(Problem):
    """The hub does not accept the token or API key."""

    code = "INVALID_TOKEN"

    def __init__(self, message: str = "the token or API key is not valid here") -> None:
        super().__init__(message)


class TokenExpired(InvalidToken):
    """The token was valid and has expired."""

    code = "TOKEN_EXPIRED"

    def __init__(self) -> None:
        super().__init__("the token has expired: log in again")


class Forbidden(Problem):
    """The actor is authenticated and lacks a permission."""

    code = "FORBIDDEN"

    def __init__(self, permission: str) -> None:
        super().__init__(f"this needs the permission {permission}")
        self.permission = permission


class RateLimited(Problem):
    """The caller made too many attempts in a short time."""

    code = "RATE_LIMITED"


class Overloaded(Problem):
    """The hub is too busy and changed nothing."""

    code = "OVERLOADED"


class TimedOut(Problem):
    """The hub stopped waiting. The change may or may not have been made."""

    code = "TIMEOUT"


class Unavailable(Problem):
    """A service that the hub needs, such as its database, cannot be reached."""

    code = "UNAVAILABLE"


class StorageFull(Unavailable):
    """The database's disk is full. Changes fail until there is space again."""

    code = "STORAGE_FULL"

    def __init__(self) -> None:
        super().__init__("the disk of the database is full; nothing was changed", retry_after=5)


class TooLarge(Problem):
    """The request is larger than a limit, which the message names."""

    code = "TOO_LARGE"


class StreamDiverged(Problem):
    """The stream has another message at the cursor's position: the database was restored or replaced."""

    code = "STREAM_DIVERGED"


class CursorExpired(Problem):
    """Messages after the cursor have been removed by retention. `oldest` is the oldest cursor that can be used."""

    code = "CURSOR_EXPIRED"

    def __init__(self, cursor: str, oldest: str) -> None:
        super().__init__(
            f"messages after the cursor {cursor} were removed, because they are older than the stream's retention: "
            f"continue after {oldest}, the oldest cursor, and query the events that you missed"
        )
        self.oldest = oldest


class CannotStart(Exception):
    """The process cannot start or continue. The message is for an operator: what is wrong, and what to do."""
