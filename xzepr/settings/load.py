"""Reads every place that settings come from, and says where each came from, or all that is wrong with them at once."""

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
from xzepr.settings.registry import keys, nearest
from xzepr.settings.yaml_files import RawValue, read_file

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings that hold together, and what is known about how they came to be."""

    settings: Settings
    origins: dict[str, str]
    """For every dotted key: `default`, a file with its line, a variable, or `command line`."""
    not_in_effect: list[str]
    """Keys that somebody set, and that nothing obeys yet."""


def load(
    *,
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
) -> LoadedSettings:
    """The settings: defaults < config/default.yaml < config/{environment}.yaml < `config_file` < environment < `flags`.

    `flags` is by dotted key; None counts as not given. The files are looked for in `cwd`, by default the working
    folder. Raises CannotStart with one message that lists every fault.
    """
    faults: list[str] = []
    given = _gather(cwd or Path.cwd(), config_file, environ, flags or {}, faults)
    settings = _check(given, faults)
    if settings is None or faults:
        raise CannotStart(_message(faults))
    origins = {name: given[name].origin if name in given else DEFAULT for name in keys()}
    later = [name for name, key in keys().items() if name in given and not key.in_effect]
    return LoadedSettings(settings, origins, later)


def _gather(
    cwd: Path, config_file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any], faults: list[str]
) -> dict[str, RawValue]:
    folder = cwd / "config"
    everywhere = _optional(folder / "default.yaml", faults)
    named = read_file(cwd / config_file, str(config_file), faults) if config_file else {}
    variables = read_environment(environ, cwd, faults)
    line = dict(_command_line(flags, faults))
    # The environment decides which file is read, so that file cannot decide the environment.
    chosen = {**everywhere, **named, **variables, **line}.get("environment", RawValue(Settings().environment, DEFAULT))
    here: dict[str, RawValue] = {}
    if isinstance(chosen.value, str) and re.fullmatch(r"[\w-]+", chosen.value):
        here = _optional(folder / f"{chosen.value}.yaml", faults)
    own = here.pop("environment", chosen)
    if own.value != chosen.value:
        faults.append(f"environment ({own.origin}) contradicts the one that chose this file ({chosen.origin})")
    return {**everywhere, **here, **named, **variables, **line}


def _optional(path: Path, faults: list[str]) -> dict[str, RawValue]:
    return read_file(path, f"config/{path.name}", faults, may_be_absent=True)


def _command_line(flags: Mapping[str, Any], faults: list[str]) -> Iterator[tuple[str, RawValue]]:
    for name, value in flags.items():
        if name not in keys():
            meant = nearest(name, keys())
            faults.append(f"{name} (command line) is unknown" + (f"; did you mean {meant}?" if meant else ""))
        elif value is not None:
            yield name, RawValue(value, "command line")


@dataclass(slots=True)
class _Findings:
    """What one round of checking found: what to say, and which keys to leave out of the next."""

    faults: list[str] = field(default_factory=list[str])
    bad: set[str] = field(default_factory=set[str])


def _check(given: dict[str, RawValue], faults: list[str]) -> Settings | None:
    """The settings, or None with their faults added.

    Contradictions are found only between settings that are right by themselves; so what is wrong is left out and the
    rest is checked again, and an operator learns everything at once.
    """
    bad: set[str] = set()
    while True:
        rest = {name: found.value for name, found in given.items() if name not in bad}
        try:
            settings = Settings.model_validate(_nested(rest))
        except ValidationError as error:
            findings = _findings(error, given, bad)
        else:
            return None if bad else settings
        faults += findings.faults
        if findings.bad <= bad:
            return None
        bad |= findings.bad


def _findings(error: ValidationError, given: dict[str, RawValue], known_bad: set[str]) -> _Findings:
    findings = _Findings()
    for detail in error.errors(include_url=False, include_input=False):
        names = _names(detail)
        findings.bad |= set(names)
        if known_bad.isdisjoint(names):
            findings.faults.append(f"{_described(names, given)}: {_wrong(detail)}")
    return findings


def _names(detail: ErrorDetails) -> list[str]:
    """The dotted keys that an error is about: the one at its place, or those that a contradiction names."""
    place = ".".join(part for part in detail["loc"] if isinstance(part, str))
    if detail["type"] != "contradiction":
        return [place]
    named: Sequence[str] = detail.get("ctx", {})["keys"]
    return [f"{place}.{name}" if place else name for name in named]


def _described(names: list[str], given: dict[str, RawValue]) -> str:
    return " and ".join(f"{name} ({given[name].origin if name in given else DEFAULT})" for name in names)


def _wrong(detail: ErrorDetails) -> str:
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


def _message(faults: list[str]) -> str:
    head = "a setting cannot be used" if len(faults) == 1 else f"{len(faults)} settings cannot be used"
    return "\n  ".join([f"{head}:", *faults])
