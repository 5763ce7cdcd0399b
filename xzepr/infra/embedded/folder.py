"""The data folder around the cluster: its lock, its log, and the short path of the socket."""

import contextlib
import fcntl
import os
import re
import tempfile
from pathlib import Path

from xzepr.core.errors import CannotStart
from xzepr.infra.embedded.account import Account

_SOCKET = ".s.PGSQL.5432"
_NOTE = "socket-folder"
_LONGEST_PATH = 103  # macOS; Linux allows 107
_LOG_BYTES = 5 * 1024 * 1024


def make_folder(data_dir: Path) -> Path:
    """The folder's real path; made, for us alone, if it is missing."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(
            f"the data folder {data_dir} cannot be made ({error.strerror}): use another --data-dir"
        ) from None
    return data_dir.resolve()


def grant_access(account: Account, data_dir: Path) -> None:
    """Let the account pass through the data folder, by its group, and change nothing above. Raises CannotStart."""
    if account.can_enter(data_dir):
        return
    if account.can_enter(data_dir.parent):
        os.chown(data_dir, -1, account.gid)
        data_dir.chmod(data_dir.stat().st_mode & 0o707 | 0o010)  # the new group may pass, no more
    if not account.can_enter(data_dir):
        raise CannotStart(
            f"PostgreSQL does not run as root, and the user {account.name} cannot reach the data folder {data_dir}:"
            " use a --data-dir that other users can reach, such as /var/lib/xzepr"
        )


def lock_folder(data_dir: Path) -> int:
    """Hold the folder until the returned descriptor is closed or the process ends. Raises CannotStart."""
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
    """A descriptor that appends to `postgres.log`; a long one is put aside first, one generation."""
    path = data_dir / "postgres.log"
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(data_dir / "postgres.log.1")
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def log_tail(data_dir: Path, lines: int = 5) -> str:
    """The last lines of the log, for a message."""
    try:
        with (data_dir / "postgres.log").open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def make_socket_folder(account: Account, data_dir: Path) -> Path:
    """A private folder for the socket: in the data folder, or a temporary one where that path is too long or odd.

    The system allows a socket's path some hundred bytes, and PostgreSQL splits the setting at commas.
    """
    folder = data_dir / "run"
    _forget_killed(data_dir)
    if len(os.fsencode(folder)) + len(f"/{_SOCKET}.lock") <= _LONGEST_PATH and re.fullmatch(
        r"[\w./+-]+", str(folder), re.ASCII
    ):
        folder.mkdir(mode=0o700, exist_ok=True)
    else:
        folder = Path(tempfile.mkdtemp(prefix="xzepr-", dir=_temporary(account)))
        (data_dir / _NOTE).write_text(str(folder))
    account.own(folder)
    return folder


def running_socket_folder(data_dir: Path) -> Path | None:
    """Where the socket is of the PostgreSQL that another process runs in the data folder; None where none does.
    Raises CannotStart when the data folder is not ours to look into."""
    try:
        note = data_dir / _NOTE
        folder = Path(note.read_text()) if note.exists() else data_dir.resolve() / "run"
        return folder if (folder / _SOCKET).exists() else None
    except FileNotFoundError:  # it was just removed
        return None
    except PermissionError as error:
        raise CannotStart(
            f"the data folder {data_dir} cannot be read ({error.strerror}): start this as the user that serves from it"
        ) from None


def remove_socket_folder(folder: Path, data_dir: Path) -> None:
    """Remove what `make_socket_folder` made, and the socket files that a killed PostgreSQL left there."""
    for name in (_SOCKET, f"{_SOCKET}.lock"):
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
    with contextlib.suppress(OSError):
        (data_dir / _NOTE).unlink()


def _forget_killed(data_dir: Path) -> None:
    """Remove the socket of a hub that was killed: its lock file names a process number that may be a stranger's now."""
    with contextlib.suppress(OSError):
        left = Path((data_dir / _NOTE).read_text())
        if left.name.startswith("xzepr-"):
            remove_socket_folder(left, data_dir)
    remove_socket_folder(data_dir / "run", data_dir)


def _temporary(account: Account) -> str:
    """The system's temporary folder, unless it is too deep for a socket or perhaps closed to another account."""
    usual = tempfile.gettempdir()
    return "/tmp" if account.switch or len(os.fsencode(usual)) > 60 else usual  # noqa: S108 - mkdtemp is private
