"""Loads the settings from files, environment and command line; reports the origin of each, or all errors at once."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from xzepr.core.errors import CannotStart
from xzepr.settings.environment import read_environment
from xzepr.settings.model import Settings
from xzepr.settings.registry import keys, nearest, value_of
from xzepr.settings.yaml_files import RawValue, read_file

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Valid settings, and the origin of each."""

    settings: Settings
    origins: dict[str, str]
    """By dotted key: `default`, a file and its line, an environment variable, or `command line`."""


def load(
    *,
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
) -> LoadedSettings:
    """Loads the settings from all sources; each overrides the ones before it.

    The sources are the defaults, config/default.yaml, config/{environment}.yaml, `config_file`, `environ` and `flags`.
    `flags` is by dotted key; a flag of None is not set. The files are in `cwd`, by default the working folder. Raises
    CannotStart with one message that lists all errors.
    """
    errors: list[str] = []
    values = _gather(cwd or Path.cwd(), config_file, environ, flags or {}, errors)
    settings = _check(values, errors)
    if settings is None or errors:
        raise CannotStart(_message(errors))
    origins = {name: values[name].origin if name in values else DEFAULT for name in keys()}
    return LoadedSettings(settings, origins)


def _without_feature(settings: Settings, values: Mapping[str, RawValue]) -> Iterator[str]:
    """Yields a message for each setting that asks for a feature that does not exist yet."""
    for name, key in keys().items():
        if key.later is not None and value_of(settings, name) != key.field.default:
            yield f"{name} ({values[name].origin}) cannot be used yet: {key.later.reason}"


def _gather(
    cwd: Path, config_file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any], errors: list[str]
) -> dict[str, RawValue]:
    folder = cwd / "config"
    default_file = _read_optional(folder / "default.yaml", errors)
    named_file = read_file(cwd / config_file, str(config_file), errors) if config_file else {}
    variables = read_environment(environ, cwd, errors)
    command_line = dict(_command_line(flags, errors))
    default = RawValue(Settings().environment, DEFAULT)
    environment = {**default_file, **named_file, **variables, **command_line}.get("environment", default)
    environment_file: dict[str, RawValue] = {}
    if isinstance(environment.value, str) and re.fullmatch(r"[\w-]+", environment.value):
        environment_file = _read_optional(folder / f"{environment.value}.yaml", errors)
    # The environment selects this file, so the file may not set another environment.
    repeated = environment_file.pop("environment", environment)
    if repeated.value != environment.value:
        errors.append(
            f"environment ({repeated.origin}) contradicts the one that chose this file ({environment.origin})"
        )
    return {**default_file, **environment_file, **named_file, **variables, **command_line}


def _read_optional(path: Path, errors: list[str]) -> dict[str, RawValue]:
    return read_file(path, f"config/{path.name}", errors, may_be_absent=True)


def _command_line(flags: Mapping[str, Any], errors: list[str]) -> Iterator[tuple[str, RawValue]]:
    for name, value in flags.items():
        if name not in keys():
            suggestion = nearest(name, keys())
            hint = f"; did you mean {suggestion}?" if suggestion else ""
            errors.append(f"{name} (command line) is unknown{hint}")
        elif value is not None:
            yield name, RawValue(value, "command line")


@dataclass(slots=True)
class _CheckErrors:
    """The result of one failed check: messages, and the keys to leave out of the next check."""

    messages: list[str] = field(default_factory=list[str])
    invalid: set[str] = field(default_factory=set[str])


def _check(values: dict[str, RawValue], errors: list[str]) -> Settings | None:
    """Returns the settings; None if they are invalid, with the messages added to `errors`.

    Contradictions are found only between values that are valid by themselves. The check is therefore repeated without
    the invalid values, so that an operator gets all errors at once.
    """
    invalid: set[str] = set()
    while True:
        rest = {name: raw.value for name, raw in values.items() if name not in invalid}
        try:
            settings = Settings.model_validate(_nested(rest))
        except ValidationError as error:
            result = _check_errors(error, values, invalid)
        else:
            errors += _without_feature(settings, values)
            return None if invalid else settings
        errors += result.messages
        if result.invalid <= invalid:
            return None
        invalid |= result.invalid


def _check_errors(error: ValidationError, values: dict[str, RawValue], reported: set[str]) -> _CheckErrors:
    result = _CheckErrors()
    for detail in error.errors(include_url=False, include_input=False):
        names = _names(detail)
        result.invalid |= set(names)
        if reported.isdisjoint(names):
            result.messages.append(f"{_described(names, values)}: {_cause(detail)}")
    return result


def _names(detail: ErrorDetails) -> list[str]:
    """Returns the dotted keys that an error is about: the one at its location, or all that a contradiction names."""
    location = ".".join(part for part in detail["loc"] if isinstance(part, str))
    if detail["type"] != "contradiction":
        return [location]
    contradicting: Sequence[str] = detail.get("ctx", {})["keys"]
    return [f"{location}.{name}" if location else name for name in contradicting]


def _described(names: list[str], values: dict[str, RawValue]) -> str:
    return " and ".join(f"{name} ({values[name].origin if name in values else DEFAULT})" for name in names)


def _cause(detail: ErrorDetails) -> str:
    text = detail["msg"]
    for noise in ("Value error, ", "Input ", "String "):
        text = text.removeprefix(noise)
    text = text.replace("a valid tuple", "a list")
    indices = [part for part in detail["loc"] if isinstance(part, int)]
    return f"item {indices[0] + 1} {text}" if indices else text


def _nested(flat: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return nested


def _message(errors: list[str]) -> str:
    head = "a setting cannot be used" if len(errors) == 1 else f"{len(errors)} settings cannot be used"
    return "\n  ".join([f"{head}:", *errors])
