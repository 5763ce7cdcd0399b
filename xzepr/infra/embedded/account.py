"""The user account that runs PostgreSQL: the hub's own, or an unprivileged one if the hub runs as root."""

import os
import pwd
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xzepr.core.errors import CannotStart

_LAUNCH_SCRIPT = Path(__file__).with_name("launch.py")
_UNPRIVILEGED_NAMES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """The account that runs PostgreSQL."""

    uid: int
    gid: int
    name: str
    switch: bool
    """Whether it is another account than the hub's."""

    def command(self, program: Path, *arguments: str, end_with_parent: bool = False) -> list[str]:
        """Returns the command line that runs a program as this account.

        With `end_with_parent`, the program gets SIGINT when this process dies.
        """
        if not self.switch and not end_with_parent:
            return [str(program), *arguments]
        ids = [str(self.uid), str(self.gid)] if self.switch else ["-", "-"]
        parent = str(os.getpid()) if end_with_parent else "-"
        return [sys.executable, "-I", "-S", str(_LAUNCH_SCRIPT), *ids, parent, str(program), *arguments]

    def can_run(self, program: Path) -> bool:
        """Returns whether the account can run the program, including the libraries that it loads."""
        return self._succeeds(self.command(program, "--version"))

    def can_enter(self, folder: Path) -> bool:
        """Returns whether the account can enter the folder and all folders above it."""
        return not self.switch or self._succeeds(self.command(Path("/bin/sh"), "-c", 'cd "$1"', "sh", str(folder)))

    def own(self, path: Path) -> None:
        """Makes the account the owner of a path in the data folder."""
        if self.switch:
            os.chown(path, self.uid, self.gid)

    @staticmethod
    def _succeeds(command: Sequence[str]) -> bool:
        return subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0  # noqa: S603


def can_end_with_parent() -> bool:
    """Returns whether a child can be made to end with this process.

    Only Linux can do that, and only from the main thread: the kernel watches the thread that started the child.
    """
    return sys.platform == "linux" and threading.current_thread() is threading.main_thread()


def choose_account(data_dir: Path, cluster: Path) -> Account:
    """Returns the hub's own account, or another one if the hub runs as root.

    For root it is the owner of the cluster or of the data folder, or else the first of `_UNPRIVILEGED_NAMES`. Raises
    CannotStart if there is none.
    """
    uid = os.getuid()
    if uid != 0:
        return Account(uid, os.getgid(), _name_of(uid), switch=False)
    for folder in (cluster, data_dir):
        if folder.exists() and folder.stat().st_uid != 0:
            owner = pwd.getpwuid(folder.stat().st_uid) if _has_name(folder.stat().st_uid) else None
            if owner is not None:
                return Account(owner.pw_uid, owner.pw_gid, owner.pw_name, switch=True)
    for name in _UNPRIVILEGED_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, switch=True)
    raise CannotStart(
        f"PostgreSQL does not run as root, and this system has no user {' or '.join(_UNPRIVILEGED_NAMES)}:"
        " start xzepr as another user, or use a database with --database-url"
    )


def clean_environment() -> dict[str, str]:
    """Returns the hub's environment without variables that affect PostgreSQL (PGPORT, PGDATA, the locale)."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}


def forget_libpq_variables() -> None:
    """Removes libpq's variables (PGHOSTADDR, PGSERVICE, PGOPTIONS …) from the environment of this process.

    They are meant for other databases, and libpq lets some of them overrule a URL.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def hub_user() -> str:
    """Returns the name of the hub's account, which PostgreSQL's peer authentication uses."""
    return _name_of(os.getuid())


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise CannotStart(
            f"PostgreSQL needs a user name, and the user id {uid} has none on this system:"
            " start xzepr as a named user, or use a database with --database-url"
        ) from None
