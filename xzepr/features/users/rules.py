"""What a user name and a password must be; and how names are compared."""

import re
from collections.abc import Iterator

from xzepr.core.errors import InvalidInput, Violation
from xzepr.features.users.model import NewUser

MAX_USERNAME = 64
MAX_PASSWORD = 1024
"""Characters. Longer ones are refused unhashed."""

_USERNAME = re.compile(rf"[a-z0-9_][a-z0-9._@+-]{{0,{MAX_USERNAME - 1}}}")
# The names that the hub itself acts under.
_RESERVED = frozenset({"system", "anonymous"})


def fold(username: str) -> str:
    """The name as it is stored and looked up: `Admin` must not pass for `admin`."""
    return username.strip().lower()


def is_username(folded: str) -> bool:
    """Whether a folded name is one that a user could have."""
    return _USERNAME.fullmatch(folded) is not None


def check_new_user(new: NewUser, *, min_password: int) -> None:
    """Raises InvalidInput with everything that is wrong; `min_password` counts characters."""
    violations = [*_username_violations(fold(new.username)), *_password_violations(new, min_password)]
    if not new.roles:
        violations.append(Violation("roles", "a user needs at least one role"))
    if violations:
        raise InvalidInput(violations)


def _username_violations(folded: str) -> Iterator[Violation]:
    if not is_username(folded):
        yield Violation(
            "username",
            f"a user name has 1 to {MAX_USERNAME} letters a-z, digits and . _ @ + -, and begins with none of . @ + -",
        )
    elif folded in _RESERVED:
        yield Violation("username", f"the name {folded!r} is the hub's own")


def _password_violations(new: NewUser, min_password: int) -> Iterator[Violation]:
    if not min_password <= len(new.password) <= MAX_PASSWORD:
        yield Violation("password", f"a password has {min_password} to {MAX_PASSWORD} characters")
    if new.password.lower() == fold(new.username):
        yield Violation("password", "the password must not be the user name")
    if any("\ud800" <= character <= "\udfff" for character in new.password):
        yield Violation("password", "the password holds half of a surrogate pair")
