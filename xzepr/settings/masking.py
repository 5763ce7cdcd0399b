"""Settings for display: their values with masked secrets, and their origins."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import SecretStr

from xzepr.settings.load import LoadedSettings
from xzepr.settings.registry import keys, value_of

MASK = "********"

# Only an address of the simplest form is shown in part. Its query is masked, because it may contain a password. An
# address with an unescaped "@" or "/" in its password does not match, and is masked as a whole.
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+]*://)((?P<user>[^\s:@/?#]*)(?P<password>:[^\s@/?#]*)?@)?"
    r"(?P<host>[^\s@/?#]*)(?P<path>/[^\s@?#]*)?(?P<query>\?[^\s@#]*)?"
)


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One setting as `xzepr config` prints it."""

    key: str
    value: str | int | float | bool | list[str] | None
    """A JSON value with masked secrets; None if the setting is unset."""
    origin: str


def shown_settings(loaded: LoadedSettings) -> list[ShownSetting]:
    """Returns all settings in the order of the model, safe to print."""
    return [ShownSetting(name, shown_value(value_of(loaded.settings, name)), loaded.origins[name]) for name in keys()]


def shown_value(value: object) -> str | int | float | bool | list[str] | None:
    """Returns a setting's value as a JSON value, with secrets masked."""
    if isinstance(value, SecretStr):
        return mask(value.get_secret_value())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [str(item) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a setting of type {type(value).__name__} cannot be shown: add it here")


def mask(secret: str) -> str:
    """Returns the mask instead of a secret. An address keeps its scheme, user, host and path."""
    match = _ADDRESS.fullmatch(secret)
    if match is None:
        return MASK
    user = "" if match["user"] is None else match["user"] + (f":{MASK}" if match["password"] else "") + "@"
    return f"{match['scheme']}{user}{match['host']}{match['path'] or ''}{'?' + MASK if match['query'] else ''}"
