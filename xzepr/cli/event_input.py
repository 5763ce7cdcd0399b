"""An event as it is reported on the command line: options, a JSON file, and a payload of its own."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from xzepr.cli.client.http import JsonObject
from xzepr.cli.yaml_reader import unknown_key
from xzepr.core import exact_json
from xzepr.core.errors import CannotStart, InvalidInput

_STDIN = Path("-")
_RECEIVER = ("receiver", "receiver_type", "receiver_version")
_OPTIONAL = ("createdAt", "idempotencyKey")
_REQUIRED = ("name", "version", "release", "platformId", "package", "description", "success")
_KNOWN = (*_REQUIRED, "payload", *_OPTIONAL, "receiver", "eventReceiverId")

Called = tuple[str, str | None, str | None]
"""A receiver: id or name, type, version."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the options say, under the names of CreateEventInput; None where one was not given."""

    receiver: str | None
    receiver_type: str | None
    receiver_version: str | None
    name: str | None
    version: str | None
    release: str | None
    platformId: str | None  # noqa: N815 - the field's name in GraphQL
    package: str | None
    description: str | None
    success: bool | None
    createdAt: str | None  # noqa: N815
    idempotencyKey: str | None  # noqa: N815


def event_input(given: Report, file: Path | None, payload: Path | None) -> tuple[JsonObject, Called]:
    """CreateEventInput without its receiver's id, and how the receiver is called. Raises CannotStart for what cannot be
    read, is unknown or is missing."""
    if file == _STDIN and payload == _STDIN:
        raise CannotStart("standard input can be the event or its payload, not both")
    content = {} if file is None else _object(file)
    options = {name: value for name, value in asdict(given).items() if value is not None and name not in _RECEIVER}
    if payload is not None:
        options["payload"] = read_json(payload)
    called = _receiver(given, content)
    content = {name: value for name, value in content.items() if name not in ("receiver", "eventReceiverId")} | options
    missing = [_option(name) for name in _REQUIRED if name not in content]
    missing += [] if "payload" in content else ["--payload FILE"]
    missing += [] if called[0] else ["--receiver"]
    if missing:
        raise CannotStart(f"an event needs {', '.join(missing)} (or a file with all of it: -f event.json)")
    return content, called


def read_json(path: Path) -> object:
    """The value in a JSON file, or standard input for `-`. Raises CannotStart for what would not be kept as it is."""
    what = "standard input" if path == _STDIN else str(path)
    try:
        return exact_json.loads(sys.stdin.buffer.read() if path == _STDIN else path.read_bytes())
    except OSError as error:
        raise CannotStart(f"{what} cannot be read: {error.strerror}") from error
    except InvalidInput as refusal:
        faults = "; ".join(f"at {one.field}: {one.message}" for one in refusal.violations)
        raise CannotStart(f"{what} holds what would not be kept as it is: {faults}") from refusal
    except ValueError as error:
        raise CannotStart(f"{what} is not JSON: {error}") from error


def _object(file: Path) -> JsonObject:
    value = read_json(file)
    if not isinstance(value, dict):
        raise CannotStart(f"{file} must hold one event, a JSON object")
    content = cast(JsonObject, value)
    for key in content:
        if key not in _KNOWN:
            raise CannotStart(f"{file}: {unknown_key(key, _KNOWN)}")
    return content


def _receiver(given: Report, content: JsonObject) -> Called:
    if given.receiver is not None:
        return given.receiver, given.receiver_type, given.receiver_version
    match content:
        case {"receiver": _, "eventReceiverId": _}:
            raise CannotStart("the event names its receiver twice: by receiver and by eventReceiverId")
        case {"eventReceiverId": str(id)}:
            return id, None, None
        case {"receiver": str(name)}:
            return name, given.receiver_type, given.receiver_version
        case {"receiver": {"name": str(name), **rest}} if _texts(rest):
            return name, rest.get("type"), rest.get("version")
        case {"receiver": _} | {"eventReceiverId": _}:
            raise CannotStart("receiver must be a name, or an object of the texts name, type and version")
        case _:
            return "", None, None


def _texts(rest: dict[Any, Any]) -> bool:
    return rest.keys() <= {"type", "version"} and all(isinstance(value, str) for value in rest.values())


def _option(name: str) -> str:
    return {"platformId": "--platform-id", "success": "--success or --failure"}.get(name, f"--{name}")
