"""The reference page of all settings, written from the model, so that the two cannot differ."""

from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr

from xzepr.settings.masking import shown_value, value_of
from xzepr.settings.model import Settings
from xzepr.settings.registry import Key, keys, parts_of, sections

_INTRODUCTION = """\
# Settings

<!-- Written by `xzepr config --reference`; a test compares. Change the descriptions in xzepr/settings/. -->

Each place overrides those before it:

1. the defaults below;
2. `config/default.yaml` in the working folder;
3. `config/{environment}.yaml` there, where the environment is `environment` below;
4. the file given as `--config FILE`;
5. the environment: `XZEPR__SERVER__PORT` is `server.port`. Lists have commas between their values, or are JSON. Every
   secret can instead stand in a file: `XZEPR__DATABASE__URL_FILE=/run/secrets/url`. `DATABASE_URL`, `REDIS_URL` and
   `APP_ENV` are other names for `database.url`, `redis.url` and `environment`; where both are set, `XZEPR__…` counts;
6. options of the command, such as `--data-dir`.

A key or variable that is not listed here, a value of the wrong kind, or two settings that contradict each other stop
the start, with one message that lists all that is wrong. An empty variable unsets a setting that can be unset, and
empties a list. Relative paths are taken from the working folder. `xzepr config` prints what is in force and where each
value came from, secrets masked. Settings marked *not in effect yet* are accepted and checked, and change nothing.

Examples are in [`deploy/config/`](../../deploy/config/).
"""

_KINDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret",
}


def reference() -> str:
    """The whole page, in Markdown."""
    parts = [_INTRODUCTION, "## top\n\nWhat belongs to no section.\n\n" + _table("")]
    for name, section in sections().items():
        if any(key.section == name for key in keys().values()):
            parts.append(f"## {name}\n\n{section.__doc__}\n\n{_table(name)}")
    return "\n".join(parts)


def _table(section: str) -> str:
    rows = [_row(key) for key in keys().values() if key.section == section]
    return "\n".join(["| key | takes | default | meaning |", "|---|---|---|---|", *rows, ""])


def _row(key: Key) -> str:
    meaning = key.field.description or ""
    if not key.in_effect:
        meaning += " *Not in effect yet.*"
    return f"| `{key.name}` | {_takes(key)} | {_default(key)} | {meaning} |"


def _takes(key: Key) -> str:
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
            if bound is not None:
                yield f"{sign} {bound}"


def _default(key: Key) -> str:
    value = shown_value(value_of(Settings(), key.name))
    if value is None:
        return ""
    if isinstance(value, list):
        return "empty" if not value else ", ".join(f"`{item}`" for item in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
