"""The reference page of all settings, generated from their model."""

from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr

from xzepr.settings.masking import shown_value
from xzepr.settings.model import Settings
from xzepr.settings.registry import Key, keys, parts_of, sections, value_of
from xzepr.settings.types import MAX_COUNT, MAX_SECONDS

_INTRODUCTION = """\
# Settings

<!-- Written by `xzepr config --reference`; a test compares. Change the descriptions in xzepr/settings/. -->

Settings come from these sources. Each overrides the ones before it:

1. the defaults below;
2. `config/default.yaml` in the working folder;
3. `config/{environment}.yaml` in the same folder, where `{environment}` is the setting `environment`;
4. the file of the option `--config FILE`;
5. environment variables: `XZEPR__SERVER__PORT` sets `server.port`. A list is written with commas between its values, or
   as JSON. A secret can also be read from a file: `XZEPR__DATABASE__URL_FILE=/run/secrets/url`. `DATABASE_URL`,
   `REDIS_URL` and `APP_ENV` are aliases of `database.url`, `redis.url` and `environment`; `XZEPR__…` overrides them;
6. options of the command, such as `--data-dir`.

The hub does not start if a key or variable is not listed here, a value has the wrong type, or two settings contradict
each other. One message lists all errors. An empty variable unsets an optional setting, and empties a list. Relative
paths start at the working folder, and `~` is the home folder. `xzepr config` prints the settings in force and the
origin of each, with secrets masked. A setting marked *not yet* belongs to a feature that does not exist yet: the hub
does not start if it has any value but its default.

Files are YAML 1.2: only `true` and `false` are booleans, and `010` is ten. A number of things or bytes is at most
2147483647, and seconds are from 0.001 to 1000000, unless the table has other bounds.

Examples are in [`deploy/config/`](../../deploy/config/).
"""

_COMMON_BOUNDS = (MAX_COUNT, MAX_SECONDS, 0.001)

_KINDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret",
}


def reference() -> str:
    """Returns the page in Markdown."""
    parts = [_INTRODUCTION, "## top\n\nSettings outside the sections.\n\n" + _table("")]
    for name, section in sections().items():
        if any(key.section == name for key in keys().values()):
            parts.append(f"## {name}\n\n{section.__doc__}\n\n{_table(name)}")
    return "\n".join(parts)


def _table(section: str) -> str:
    rows = [_row(key) for key in keys().values() if key.section == section]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _row(key: Key) -> str:
    meaning = key.field.description or ""
    if key.later is not None:
        meaning += " *Not yet.*"
    return f"| `{key.name}` | {_type(key)} | {_default(key)} | {meaning} |"


def _type(key: Key) -> str:
    kinds = [_kind(part) for part in parts_of(key.field.annotation) if part is not NoneType]
    return ", ".join([" or ".join(kinds), *_bounds(key)])


def _kind(part: Any) -> str:
    if get_origin(part) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(part))
    return "list" if get_origin(part) is tuple else _KINDS[part]


def _bounds(key: Key) -> Iterator[str]:
    for rule in key.field.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤")):
            bound = getattr(rule, name, None)
            if bound is not None and bound not in _COMMON_BOUNDS:
                yield f"{sign} {bound}"


def _default(key: Key) -> str:
    value = shown_value(value_of(Settings(), key.name))
    if value is None:
        return ""
    if isinstance(value, list):
        return "empty" if not value else ", ".join(f"`{item}`" for item in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
