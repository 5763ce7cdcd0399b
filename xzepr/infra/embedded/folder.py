"""The data folder: its lock, PostgreSQL's log, and the folder of the Unix socket."""

import contextlib
import fcntl
import os
import re
import tempfile
from pathlib import Path

from xzepr.core.errors import CannotStart
from xzepr.infra.embedded.account import Account

_SOCKET = ".s.PGSQL.5432"
_SOCKET_FOLDER_FILE = "socket-folder"  # its content is the path of a temporary socket folder
_MAX_SOCKET_PATH_BYTES = 103  # macOS; Linux allows 107
_MAX_LOG_BYTES = 5 * 1024 * 1024


def make_folder(data_dir: Path) -> Path:
    """Returns the folder's real path. Creates it, private to the hub's account, if it is missing."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(
            f"the data folder {data_dir} cannot be created ({error.strerror}): use another --data-dir"
        ) from None
    return data_dir.resolve()


def grant_access(account: Account, data_dir: Path) -> None:
    """Lets the account enter the data folder by its group. Raises CannotStart if a folder above prevents that."""
    if account.can_enter(data_dir):
        return
    if account.can_enter(data_dir.parent):
        os.chown(data_dir, -1, account.gid)
        data_dir.chmod(data_dir.stat().st_mode & 0o707 | 0o010)  # the group may only enter it
    if not account.can_enter(data_dir):
        raise CannotStart(
            f"PostgreSQL does not run as root, and the user {account.name} cannot reach the data folder {data_dir}:"
            " use a --data-dir that other users can reach, such as /var/lib/xzepr"
        )


def lock_folder(data_dir: Path) -> int:
    """Locks the folder until the returned descriptor is closed or the process ends.

    Raises CannotStart if another process has locked it.
    """
    try:
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(
            f"the data folder {data_dir} cannot be written ({error.strerror}): use another --data-dir"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise CannotStart(
            f"the data folder {data_dir} is in use by another xzepr server (pid {holder}):"
            " stop it or use another --data-dir"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def open_log(data_dir: Path) -> int:
    """Opens `postgres.log` for appending. A log above 5 MiB is first renamed to `postgres.log.1`."""
    path = data_dir / "postgres.log"
    if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
        path.replace(data_dir / "postgres.log.1")
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def log_tail(data_dir: Path, lines: int = 5) -> str:
    """Returns the last lines of the log, for an error message."""
    try:
        with (data_dir / "postgres.log").open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def make_socket_folder(account: Account, data_dir: Path) -> Path:
    """Creates a private folder for the socket: in the data folder, or a temporary one if that path is not suitable.

    The system limits the path of a socket to about 100 bytes, and PostgreSQL splits its setting at commas.
    """
    folder = data_dir / "run"
    _remove_stale_socket(data_dir)
    if len(os.fsencode(folder)) + len(f"/{_SOCKET}.lock") <= _MAX_SOCKET_PATH_BYTES and re.fullmatch(
        r"[\w./+-]+", str(folder), re.ASCII
    ):
        folder.mkdir(mode=0o700, exist_ok=True)
    else:
        folder = Path(tempfile.mkdtemp(prefix="xzepr-", dir=_temporary_parent(account)))
        (data_dir / _SOCKET_FOLDER_FILE).write_text(str(folder))
    account.own(folder)
    return folder


def running_socket_folder(data_dir: Path) -> Path | None:
    """Returns the socket folder of the PostgreSQL that another process runs in the data folder; None if none runs.

    Raises CannotStart if this account may not read the data folder.
    """
    try:
        folder_file = data_dir / _SOCKET_FOLDER_FILE
        folder = Path(folder_file.read_text()) if folder_file.exists() else data_dir.resolve() / "run"
        return folder if (folder / _SOCKET).exists() else None
    except FileNotFoundError:  # the server has just stopped
        return None
    except PermissionError as error:
        raise CannotStart(
            f"the data folder {data_dir} cannot be read ({error.strerror}): run this as the user that runs the hub"
        ) from None


def remove_socket_folder(folder: Path, data_dir: Path) -> None:
    """Removes the folder of `make_socket_folder`, and the files that a killed PostgreSQL left in it."""
    for name in (_SOCKET, f"{_SOCKET}.lock"):
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
    with contextlib.suppress(OSError):
        (data_dir / _SOCKET_FOLDER_FILE).unlink()


def _remove_stale_socket(data_dir: Path) -> None:
    """Removes the socket of a killed hub. The process id in its lock file may now belong to another process."""
    with contextlib.suppress(OSError):
        temporary = Path((data_dir / _SOCKET_FOLDER_FILE).read_text())
        if temporary.name.startswith("xzepr-"):
            remove_socket_folder(temporary, data_dir)
    remove_socket_folder(data_dir / "run", data_dir)


def _temporary_parent(account: Account) -> str:
    """Returns the system's temporary folder, or /tmp if its path is too long or another account must enter it."""
    default = tempfile.gettempdir()
    return "/tmp" if account.switch or len(os.fsencode(default)) > 60 else default  # noqa: S108 - mkdtemp is private
