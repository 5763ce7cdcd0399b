"""The types of settings' values, and the marker of settings whose features do not exist yet."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A section of the settings. It is frozen, rejects unknown keys, and validates its defaults too."""

    # A rejected value may be a secret, and validation errors may be logged.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)


def contradiction(message: str, *keys: str) -> PydanticCustomError:
    """Returns an error about settings that exclude each other. The loader reports the origin of each of the `keys`."""
    return PydanticCustomError("contradiction", "{problem}", {"problem": message, "keys": keys})


@dataclass(frozen=True, slots=True)
class Later:
    """Marks a setting whose feature does not exist yet. Its default means "off"; any other value stops the start."""

    reason: str
    """What the hub lacks, and what to do instead, as the end of an error message."""


def reject_bool(value: object) -> object:
    """Rejects booleans as numbers: in Python True is 1, so `port: true` in YAML would mean port 1."""
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


def lower(value: object) -> object:
    """Returns text in lower case, so that INFO is accepted for info. Other values stay as they are."""
    return value.lower() if isinstance(value, str) else value


def _origin(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+", value):
        raise ValueError("should be an origin, such as https://hub.example.org:8443, without a path")
    return value


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
        raise ValueError("should be an address, such as https://hub.example.org, without a question mark or a password")
    return value.rstrip("/")


def _host(value: str) -> str:
    """Returns a host as browsers send it: a name with letters beyond ASCII in its encoded form (`xn--…`)."""
    if value == "*" or _IPV6.fullmatch(value):
        return value
    if value.startswith("*"):
        raise ValueError("should be a full host name: name each host, or use * alone to allow all")
    try:
        name = value if value.isascii() else value.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise ValueError("should be a host name or address, without a scheme or a path")
    return name


def _broker(value: str) -> str:
    """Returns host:port. A protocol in front is removed, as Java's client does: `security_protocol` decides."""
    match = _BROKER.fullmatch(value)
    if match is None or (match["port"] is not None and not 0 < int(match["port"]) <= 65535):
        raise ValueError("should be host:port, with a port from 1 to 65535 and an IPv6 address in brackets")
    return match["address"]


def _expand(value: Path) -> Path:
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError("begins with ~, and this user has no home folder") from None


def _folder(value: object) -> object:
    # Path("") is the working folder, which an empty variable is not meant to select.
    if value == "":
        raise ValueError("should name a folder")
    return value


def _postgres_url(value: SecretStr) -> SecretStr:
    if not re.match(r"postgres(ql)?(\+\w+)?://|\s*\w+\s*=", value.get_secret_value()):
        raise ValueError("should start with postgresql://, or be pairs such as host=db user=xzepr")
    return value


MAX_COUNT = 2**31 - 1
MAX_SECONDS = 1_000_000  # two of them, in milliseconds, are within PostgreSQL's integers
MAX_HOURS = 1_000_000  # 114 years

_IPV6 = re.compile(r"(\[[0-9A-Fa-f:.]+\](:\d+)?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?")
_BROKER = re.compile(
    r"((PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)://)?"
    r"(?P<address>(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?)"
)

Number = Annotated[int, BeforeValidator(reject_bool)]
Count = Annotated[Number, Field(ge=1, le=MAX_COUNT)]
Hours = Annotated[Number, Field(ge=1, le=MAX_HOURS)]
Seconds = Annotated[float, BeforeValidator(reject_bool), Field(ge=0.001, le=MAX_SECONDS, allow_inf_nan=False)]
Skew = Annotated[float, BeforeValidator(reject_bool), Field(ge=0, le=3600, allow_inf_nan=False)]
Origin = Annotated[str, AfterValidator(_origin)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Host = Annotated[str, AfterValidator(_host)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
Broker = Annotated[str, AfterValidator(_broker)]
File = Annotated[Path, AfterValidator(_expand)]
Folder = Annotated[Path, BeforeValidator(_folder), AfterValidator(_expand)]
Text = Annotated[str, Field(min_length=1)]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
