"""The user's credentials for each hub: tokens stored by `xzepr login`, or an API key from the environment."""

import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import orjson
from platformdirs import user_config_path

from xzepr.core.clock import now
from xzepr.core.errors import CannotStart
from xzepr.infra.files import replace_file

API_KEY = "XZEPR_API_KEY"


@dataclass(frozen=True, slots=True)
class SavedLogin:
    """A token that one hub issued to one user."""

    username: str
    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class HubCredential:
    """The secret sent to a hub, and what the user can do if the hub rejects it."""

    secret: str = field(repr=False)
    remedy: str


def saved_logins_file() -> Path:
    """Returns the path of the file of saved logins; the file may not exist. Raises CannotStart without a home."""
    try:
        return user_config_path("xzepr") / "sessions.json"
    except RuntimeError:
        raise CannotStart(
            f"there is no home folder for logins: set HOME or XDG_CONFIG_HOME, or put an API key into {API_KEY}"
        ) from None


def save_login(hub: str, login: SavedLogin) -> None:
    """Stores a login for later commands, readable only by the user. Raises CannotStart if it cannot be written."""
    path = saved_logins_file()
    try:
        logins = {**_read_logins(path), hub: asdict(login)}
        replace_file(path, orjson.dumps(logins, option=orjson.OPT_INDENT_2), 0o600)
    except OSError as error:
        raise CannotStart(f"the login cannot be stored in {path}: {error.strerror}") from error


def forget_login(hub: str) -> str | None:
    """Deletes the login saved for this hub. Returns its user name, or None if there was none. Raises CannotStart."""
    path = saved_logins_file()
    logins = _read_logins(path)
    if hub not in logins:
        return None
    saved = logins.pop(hub)
    try:
        replace_file(path, orjson.dumps(logins, option=orjson.OPT_INDENT_2), 0o600)
    except OSError as error:
        raise CannotStart(f"the login cannot be deleted from {path}: {error.strerror}") from error
    login = _parse_login(saved)
    return "" if login is None else login.username


def credential_for(hub: str) -> HubCredential:
    """Returns the API key from the environment, or else the login saved for this hub.

    Raises CannotStart, with what to do, if there is neither or the login has expired.
    """
    if key := os.environ.get(API_KEY, "").strip():
        if not (key.isascii() and key.isprintable()):
            raise CannotStart(f"{API_KEY} contains characters that no API key has: check it for quotes and line breaks")
        return HubCredential(key, f"check {API_KEY}")
    log_in = f"run `xzepr login --hub {hub}`"
    login = _parse_login(_read_logins(saved_logins_file()).get(hub))
    if login is None:
        raise CannotStart(f"you are not logged in to {hub}: {log_in}, or put an API key into {API_KEY}")
    if login.expires_at <= now():
        raise CannotStart(f"the login of {login.username} to {hub} has expired: {log_in}")
    return HubCredential(login.token, f"{log_in}, or put an API key into {API_KEY}, which outlasts a login")


def _parse_login(saved: object) -> SavedLogin | None:
    """Returns a login from its JSON object, or None if it is malformed."""
    match saved:
        case {"username": str(username), "token": str(token), "expires_at": str(expires_at)}:
            with suppress(ValueError):
                time = datetime.fromisoformat(expires_at)
                return None if time.tzinfo is None else SavedLogin(username, token, time)
        case _:
            pass
    return None


def _read_logins(path: Path) -> dict[str, Any]:
    try:
        saved = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CannotStart(f"the saved logins in {path} cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise CannotStart(
            f"{path} is not a valid file of saved logins ({error}): delete it and log in again"
        ) from error
    return cast(dict[str, Any], saved) if isinstance(saved, dict) else {}
