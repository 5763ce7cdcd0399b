"""Settings as they may be shown: secrets masked, with their origins."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import SecretStr

from xzepr.settings.load import LoadedSettings
from xzepr.settings.model import Settings
from xzepr.settings.registry import keys

MASK = "********"

# Only an address of the plainest form is shown in part. Its query may hold a password too, so it is dropped; and an "@"
# or "/" that stands in an unescaped password makes the whole fail to match.
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+]*://)((?P<user>[^\s:@/?#]*)(?P<password>:[^\s@/?#]*)?@)?"
    r"(?P<host>[^\s@/?#]*)(?P<path>/[^\s@?#]*)?(?P<query>\?[^\s@#]*)?"
)


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One line of `xzepr config`."""

    key: str
    value: str | int | float | bool | list[str] | None
    """As JSON has it; None when unset, secrets masked."""
    origin: str
    in_effect: bool


def shown_settings(loaded: LoadedSettings) -> list[ShownSetting]:
    """Every setting in the order of the model, safe to print."""
    return [
        ShownSetting(name, shown_value(value_of(loaded.settings, name)), loaded.origins[name], key.in_effect)
        for name, key in keys().items()
    ]


def value_of(settings: Settings, name: str) -> object:
    """The value of a dotted key."""
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def shown_value(value: object) -> str | int | float | bool | list[str] | None:
    """A setting's value as JSON can hold it, without its secret."""
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
    raise TypeError(f"a setting of type {type(value).__name__} needs a way to be shown")


def mask(secret: str) -> str:
    """The secret with everything hidden but, for an address, its scheme, user, host and path."""
    match = _ADDRESS.fullmatch(secret)
    if match is None:
        return MASK
    user = "" if match["user"] is None else match["user"] + (f":{MASK}" if match["password"] else "") + "@"
    return f"{match['scheme']}{user}{match['host']}{match['path'] or ''}{'?' + MASK if match['query'] else ''}"
