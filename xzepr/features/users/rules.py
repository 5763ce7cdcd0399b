"""Rules for user names and passwords, without I/O."""

import re
from collections.abc import Iterator

from xzepr.core.errors import InvalidInput, Violation
from xzepr.features.users.model import NewUser

MAX_USERNAME = 64  # characters
MAX_PASSWORD = 1024  # characters; longer ones are rejected without hashing

_USERNAME = re.compile(rf"[a-z0-9_][a-z0-9._@+-]{{0,{MAX_USERNAME - 1}}}")
# Names of actors that are no users.
_RESERVED = frozenset({"system", "anonymous"})


def fold(username: str) -> str:
    """Returns a user name as it is stored: without outer spaces and in lower case, so that `Admin` is `admin`."""
    return username.strip().lower()


def is_username(folded: str) -> bool:
    """Returns whether a folded name is a valid user name."""
    return _USERNAME.fullmatch(folded) is not None


def check_new_user(new: NewUser, *, min_password: int) -> None:
    """Raises InvalidInput with all violations. `min_password` counts characters."""
    violations = [*_username_violations(fold(new.username)), *_password_violations(new, min_password)]
    if not new.roles:
        violations.append(Violation("roles", "a user needs at least one role"))
    if violations:
        raise InvalidInput(violations)


def _username_violations(folded: str) -> Iterator[Violation]:
    if not is_username(folded):
        yield Violation(
            "username",
            f"a user name must have 1 to {MAX_USERNAME} letters a-z, digits and . _ @ + -, "
            "and must begin with a letter, a digit or _",
        )
    elif folded in _RESERVED:
        yield Violation("username", f"the name {folded!r} is reserved for the hub")


def _password_violations(new: NewUser, min_password: int) -> Iterator[Violation]:
    if not min_password <= len(new.password) <= MAX_PASSWORD:
        yield Violation("password", f"a password must have {min_password} to {MAX_PASSWORD} characters")
    if new.password.lower() == fold(new.username):
        yield Violation("password", "the password must not be the user name")
    if any("\ud800" <= character <= "\udfff" for character in new.password):
        yield Violation("password", "the password contains a lone surrogate, which is not valid Unicode")
