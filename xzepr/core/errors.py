"""Every way a request can be refused, as kinds with stable codes; only `api/errors.py` knows their HTTP statuses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class Problem(Exception):
    """Something the caller can understand and act on. Anything that is not a Problem is our bug."""

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after
        """Seconds after which the same call may succeed; None where waiting does not help."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of an input: where it is (`payload/size`, `name`; RFC 6901 below the field) and what is wrong."""

    field: str
    message: str


class InvalidInput(Problem):
    """The input breaks a rule; `violations` holds every one that was found."""

    code = "INVALID_INPUT"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(v.message for v in violations), field=violations[0].field)
        self.violations = tuple(violations)

    @classmethod
    def one(cls, field: str, message: str) -> "InvalidInput":
        """The refusal of a single field."""
        return cls((Violation(field, message),))


class NotFound(Problem):
    """Nothing of that noun has that id, or the caller may not know that it has."""

    code = "NOT_FOUND"

    def __init__(self, noun: str, id: str, *, field: str | None = None) -> None:
        super().__init__(f"there is no {noun} {id!r}", field=field)
        self.noun = noun
        self.id = id


class Conflict(Problem):
    """The input is well formed, and what is stored contradicts it."""

    code = "CONFLICT"


class Unauthenticated(Problem):
    """The call needs an actor and carries no credentials."""

    code = "UNAUTHENTICATED"

    def __init__(self, message: str = "sign in first: send a token or an API key") -> None:
        super().__init__(message)


class InvalidCredentials(Problem):
    """User name and password do not belong together; says the same for an unknown user."""

    code = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("user name or password is wrong")


class InvalidToken(Problem):
    """A token or API key was presented that this hub does not accept."""

    code = "INVALID_TOKEN"

    def __init__(self, message: str = "the token or API key is not valid here") -> None:
        super().__init__(message)


class TokenExpired(InvalidToken):
    """The token was valid once."""

    code = "TOKEN_EXPIRED"

    def __init__(self) -> None:
        super().__init__("the token has expired: log in again")


class Forbidden(Problem):
    """The actor is known and lacks a permission."""

    code = "FORBIDDEN"

    def __init__(self, permission: str) -> None:
        super().__init__(f"this needs the permission {permission}")
        self.permission = permission


class RateLimited(Problem):
    """Too many of something for now."""

    code = "RATE_LIMITED"


class Overloaded(Problem):
    """The hub is too busy and has done nothing of what was asked."""

    code = "OVERLOADED"


class TimedOut(Problem):
    """The hub gave up waiting; what was asked may or may not have happened."""

    code = "TIMEOUT"


class Unavailable(Problem):
    """Something the hub needs, such as its database, cannot be reached."""

    code = "UNAVAILABLE"


class StorageFull(Unavailable):
    """The disk under the database is full: nothing of what was asked is kept until there is room again."""

    code = "STORAGE_FULL"

    def __init__(self) -> None:
        super().__init__("the disk under the database is full; nothing was changed", retry_after=5)


class TooLarge(Problem):
    """A request is larger than a limit, which the message names."""

    code = "TOO_LARGE"


class StreamDiverged(Problem):
    """The cursor names a message that this stream does not hold there: the database was restored or replaced."""

    code = "STREAM_DIVERGED"


class CursorExpired(Problem):
    """Messages after the cursor are older than the stream is kept, and were removed; `oldest` is the oldest cursor to
    go on from."""

    code = "CURSOR_EXPIRED"

    def __init__(self, cursor: str, oldest: str) -> None:
        super().__init__(
            f"messages after the cursor {cursor} are older than this stream is kept, and were removed: go on after "
            f"{oldest}, the oldest cursor there is, and read by queries what you missed"
        )
        self.oldest = oldest


class CannotStart(Exception):
    """The process cannot start or go on. The message tells an operator, in a sentence or two, what is wrong and what
    to do."""
