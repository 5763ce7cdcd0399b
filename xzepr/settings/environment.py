"""Settings from environment variables: `XZEPR__A__B`, `XZEPR__A__B_FILE` for secrets in files, and three aliases."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from xzepr.settings.registry import ALIASES, PREFIX, Key, keys, nearest
from xzepr.settings.yaml_files import RawValue

_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]+\]")  # an address that begins like a JSON list


def read_environment(environ: Mapping[str, str], cwd: Path, errors: list[str]) -> dict[str, RawValue]:
    """Returns the values that the environment sets, by dotted key. Adds a message to `errors` for each mistake."""
    values = {key: RawValue(environ[alias], alias) for alias, key in ALIASES.items() if environ.get(alias)}
    by_variable = {key.variable: key for key in keys().values()}
    by_file = {f"{key.variable}_FILE": key for key in keys().values() if key.secret}
    for name in sorted(name for name in environ if name.upper().startswith(PREFIX)):
        if name in by_variable:
            key = by_variable[name]
            values[key.name] = RawValue(_value(key, name, environ[name], errors), name)
        elif name in by_file:
            key = by_file[name]
            if environ.get(key.variable):
                errors.append(f"{key.name} is set twice, by {key.variable} and by {name}: remove one")
            elif environ[name]:
                values[key.name] = _secret(name, environ[name], cwd, errors)
        else:
            errors.append(_unknown(name, [*by_variable, *by_file]))
    return values


def _value(key: Key, name: str, text: str, errors: list[str]) -> object:
    if key.is_list:
        return _list(key, name, text, errors)
    return None if key.optional and not text else text


def _list(key: Key, name: str, text: str, errors: list[str]) -> list[object]:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return json.loads(text)
    except ValueError:
        parts = [part.strip() for part in text.split(",")]
        if all(_IPV6.match(part) for part in parts if part.startswith("[")):
            return [part for part in parts if part]
        errors.append(f"{key.name} ({name}) should be a list: values with commas between them, or JSON")
        return []


def _secret(name: str, path: str, cwd: Path, errors: list[str]) -> RawValue:
    """Reads a secret from a file, without the line end that editors and `echo` add."""
    origin = f"{name}={path}"
    try:
        text = (cwd / Path(path).expanduser()).read_text(encoding="utf-8-sig")
    except OSError as error:
        errors.append(f"{origin} cannot be read: {error.strerror}")
        return RawValue(None, origin)
    except UnicodeDecodeError:
        errors.append(f"{origin} is not UTF-8 text")
        return RawValue(None, origin)
    return RawValue(text.rstrip("\r\n") or None, origin)


def _unknown(name: str, variables: list[str]) -> str:
    suggestion = nearest(name.upper(), variables)
    return f"{name} is not a setting" + (f"; did you mean {suggestion}?" if suggestion else "")
