"""Settings from the environment: `XZEPR__A__B`, secrets also from a file (`XZEPR__A__B_FILE`), and three aliases."""

import json
from collections.abc import Mapping
from pathlib import Path

from xzepr.settings.registry import ALIASES, PREFIX, Key, keys, nearest
from xzepr.settings.yaml_files import RawValue


def read_environment(environ: Mapping[str, str], cwd: Path, faults: list[str]) -> dict[str, RawValue]:
    """What the environment sets, by dotted key. Adds a sentence to `faults` for everything wrong."""
    given = {key: RawValue(environ[alias], alias) for alias, key in ALIASES.items() if environ.get(alias)}
    by_variable = {key.variable: key for key in keys().values()}
    by_file = {f"{key.variable}_FILE": key for key in keys().values() if key.secret}
    for name in sorted(name for name in environ if name.upper().startswith(PREFIX)):
        if name in by_variable:
            key = by_variable[name]
            given[key.name] = RawValue(_value(key, name, environ[name], faults), name)
        elif name in by_file:
            key = by_file[name]
            if environ.get(key.variable):
                faults.append(f"{key.name} is set twice, by {key.variable} and by {name}: remove one")
            elif environ[name]:
                given[key.name] = _secret(name, environ[name], cwd, faults)
        else:
            faults.append(_unknown(name, [*by_variable, *by_file]))
    return given


def _value(key: Key, name: str, text: str, faults: list[str]) -> object:
    if key.many:
        return _list(key, name, text, faults)
    return None if key.optional and not text else text


def _list(key: Key, name: str, text: str, faults: list[str]) -> list[object]:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return json.loads(text)
    except ValueError:
        faults.append(f"{key.name} ({name}) should be a list: values with commas between them, or JSON")
        return []


def _secret(name: str, path: str, cwd: Path, faults: list[str]) -> RawValue:
    """The file's text without the line end that editors and `echo` put there."""
    origin = f"{name}={path}"
    try:
        text = (cwd / path).read_text(encoding="utf-8")
    except OSError as error:
        faults.append(f"{origin} cannot be read: {error.strerror}")
        return RawValue(None, origin)
    except UnicodeDecodeError:
        faults.append(f"{origin} is not UTF-8 text")
        return RawValue(None, origin)
    return RawValue(text.rstrip("\r\n") or None, origin)


def _unknown(name: str, known: list[str]) -> str:
    meant = nearest(name.upper(), known)
    return f"{name} is not a setting" + (f"; did you mean {meant}?" if meant else "")
