"""Who this person is to which hub: the tokens that `xzepr login` keeps in the user's folder, and the API key."""

import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import orjson
from platformdirs import user_config_path

from xzepr.core.clock import now
from xzepr.core.errors import CannotStart

API_KEY = "XZEPR_API_KEY"


@dataclass(frozen=True, slots=True)
class Login:
    """A token that one hub gave to one user."""

    username: str
    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Credential:
    """What is presented to a hub, and what to do when the hub does not take it."""

    secret: str = field(repr=False)
    remedy: str


def sessions_file() -> Path:
    """The file of saved logins, whether or not it exists."""
    return user_config_path("xzepr") / "sessions.json"


def save(hub: str, login: Login) -> None:
    """Keeps a login for later commands, readable by its user alone."""
    path = sessions_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace(path, orjson.dumps({**_read(path), hub: asdict(login)}, option=orjson.OPT_INDENT_2))
    except OSError as error:
        raise CannotStart(f"the login cannot be kept in {path}: {error.strerror}") from error


def credential(hub: str) -> Credential:
    """The API key of the environment, else the login saved for this hub. Raises CannotStart, with what to do, when
    there is none or it has expired."""
    if key := os.environ.get(API_KEY, "").strip():
        return Credential(key, f"check {API_KEY}")
    again = f"run `xzepr login --hub {hub}`"
    login = _login(_read(sessions_file()).get(hub))
    if login is None:
        raise CannotStart(f"you are not logged in to {hub}: {again}, or put an API key into {API_KEY}")
    if login.expires_at <= now():
        raise CannotStart(f"the login of {login.username} to {hub} has expired: {again}")
    return Credential(login.token, f"{again}, or put an API key into {API_KEY}, which outlasts a login")


def _login(saved: object) -> Login | None:
    match saved:
        case {"username": str(username), "token": str(token), "expires_at": str(expires_at)}:
            with suppress(ValueError):
                time = datetime.fromisoformat(expires_at)
                return None if time.tzinfo is None else Login(username, token, time)
        case _:
            pass
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        saved = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CannotStart(f"the saved logins in {path} cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise CannotStart(f"{path} does not hold saved logins ({error}): delete it, and log in again") from error
    return cast(dict[str, Any], saved) if isinstance(saved, dict) else {}


def _replace(path: Path, content: bytes) -> None:
    """Writes the file anew under a name of its own, so that nobody reads half of it; `mkstemp` makes it 0600."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
