"""Builds the input of an event from command-line options, a JSON file and a payload file."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from xzepr.cli.client.http import JsonObject
from xzepr.cli.output import unknown_key_message
from xzepr.core import exact_json
from xzepr.core.errors import CannotStart, InvalidInput

_STDIN = Path("-")
_RECEIVER_OPTIONS = ("receiver", "receiver_type", "receiver_version")
_RECEIVER_KEYS = ("receiver", "eventReceiverId")
_OPTIONAL_KEYS = ("occurredAt", "idempotencyKey")
_REQUIRED_KEYS = ("name", "version", "release", "platformId", "package", "description", "success")
_ALLOWED_KEYS = (*_REQUIRED_KEYS, "payload", *_OPTIONAL_KEYS, *_RECEIVER_KEYS)

# Id or name, type and version of a receiver.
ReceiverReference = tuple[str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class EventOptions:
    """The options of `events create`, named like the fields of CreateEventInput; None if not given."""

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
    occurredAt: str | None  # noqa: N815
    idempotencyKey: str | None  # noqa: N815


def event_input(options: EventOptions, file: Path | None, payload: str | None) -> tuple[JsonObject, ReceiverReference]:
    """Returns CreateEventInput without the receiver's id, and a reference to the receiver.

    Options override the file. Raises CannotStart if an input cannot be read, or a key is unknown or missing.
    """
    if file == _STDIN and payload == str(_STDIN):
        raise CannotStart("standard input can be the event or its payload, not both")
    content = {} if file is None else _read_event(file)
    overrides = {
        name: value for name, value in asdict(options).items() if value is not None and name not in _RECEIVER_OPTIONS
    }
    if payload is not None:
        overrides["payload"] = _payload(payload)
    receiver = _receiver(options, content)
    content = {name: value for name, value in content.items() if name not in _RECEIVER_KEYS} | overrides
    missing = [_option(name) for name in _REQUIRED_KEYS if name not in content]
    missing += [] if "payload" in content else ["--payload FILE"]
    missing += [] if receiver[0] else ["--receiver"]
    if missing:
        raise CannotStart(f"an event needs {', '.join(missing)} (or a file with all of it: -f event.json)")
    return content, receiver


def read_json(path: Path) -> object:
    """Returns the value in a JSON file, or in standard input for `-`.

    Raises CannotStart if it cannot be read, is not JSON, or has values that cannot be stored exactly.
    """
    source = "standard input" if path == _STDIN else str(path)
    try:
        text = sys.stdin.buffer.read() if path == _STDIN else path.read_bytes()
    except OSError as error:
        raise CannotStart(f"{source} cannot be read: {error.strerror}") from error
    return _parse(source, text)


def _payload(text: str) -> object:
    """Returns a payload from its JSON, or from the file that the text names.

    JSON starts with a brace or a bracket.
    """
    if text.lstrip().startswith(("{", "[")):
        return _parse("--payload", text.encode())
    return read_json(Path(text))


def _parse(source: str, text: bytes) -> object:
    try:
        return exact_json.loads(text)
    except InvalidInput as error:
        causes = "; ".join(f"at {violation.field}: {violation.message}" for violation in error.violations)
        raise CannotStart(f"{source} has values that cannot be stored exactly: {causes}") from error
    except ValueError as error:
        raise CannotStart(f"{source} is not JSON: {error}") from error


def _read_event(file: Path) -> JsonObject:
    value = read_json(file)
    if not isinstance(value, dict):
        raise CannotStart(f"{file} must contain one event, a JSON object")
    content = cast(JsonObject, value)
    for key in content:
        if key not in _ALLOWED_KEYS:
            raise CannotStart(f"{file}: {unknown_key_message(key, _ALLOWED_KEYS)}")
    return content


def _receiver(options: EventOptions, content: JsonObject) -> ReceiverReference:
    """Returns the reference from the options or else the file; its first item is empty if there is none."""
    if options.receiver is not None:
        return options.receiver, options.receiver_type, options.receiver_version
    match content:
        case {"receiver": _, "eventReceiverId": _}:
            raise CannotStart("the event names its receiver twice: remove receiver or eventReceiverId")
        case {"eventReceiverId": str(id)}:
            return id, None, None
        case {"receiver": str(name)}:
            return name, options.receiver_type, options.receiver_version
        case {"receiver": {"name": str(name), **rest}} if _is_type_and_version(rest):
            return name, rest.get("type"), rest.get("version")
        case {"receiver": _} | {"eventReceiverId": _}:
            raise CannotStart("receiver must be a name, or an object of the strings name, type and version")
        case _:
            return "", None, None


def _is_type_and_version(rest: dict[Any, Any]) -> bool:
    return rest.keys() <= {"type", "version"} and all(isinstance(value, str) for value in rest.values())


def _option(name: str) -> str:
    return {"platformId": "--platform-id", "success": "--success or --failure"}.get(name, f"--{name}")
