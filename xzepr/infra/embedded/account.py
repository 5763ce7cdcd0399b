"""The operating system's account PostgreSQL runs as: our own, or an unprivileged one when we are root."""

import os
import pwd
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xzepr.core.errors import CannotStart

_LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs PostgreSQL. `switch` says that it is somebody else than the hub."""

    uid: int
    gid: int
    name: str
    switch: bool

    def command(self, program: Path, *arguments: str, end_with_parent: bool = False) -> list[str]:
        """The command line that runs the program as this account; `tied`: and interrupts it when this process dies."""
        if not self.switch and not end_with_parent:
            return [str(program), *arguments]
        ids = [str(self.uid), str(self.gid)] if self.switch else ["-", "-"]
        parent = str(os.getpid()) if end_with_parent else "-"
        return [sys.executable, "-I", "-S", str(_LAUNCH), *ids, parent, str(program), *arguments]

    def can_run(self, program: Path) -> bool:
        """Whether the account reaches the program and everything it is linked with."""
        return self._succeeds(self.command(program, "--version"))

    def can_enter(self, folder: Path) -> bool:
        """Whether the account passes every folder on the way to this one, and this one."""
        return not self.switch or self._succeeds(self.command(Path("/bin/sh"), "-c", 'cd "$1"', "sh", str(folder)))

    def own(self, path: Path) -> None:
        """Give the account the path, which is inside the data folder."""
        if self.switch:
            os.chown(path, self.uid, self.gid)

    @staticmethod
    def _succeeds(command: Sequence[str]) -> bool:
        return subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0  # noqa: S603


def can_end_with_parent() -> bool:
    """Whether a child can be tied to this process: on Linux, from the main thread (the kernel watches the thread)."""
    return sys.platform == "linux" and threading.current_thread() is threading.main_thread()


def choose_account(data_dir: Path, cluster: Path) -> Account:
    """Our own account, unless we are root: then the cluster's or folder's owner, `postgres` or `nobody`."""
    uid = os.getuid()
    if uid != 0:
        return Account(uid, os.getgid(), _name_of(uid), switch=False)
    for folder in (cluster, data_dir):
        if folder.exists() and folder.stat().st_uid != 0:
            owner = pwd.getpwuid(folder.stat().st_uid) if _known(folder.stat().st_uid) else None
            if owner is not None:
                return Account(owner.pw_uid, owner.pw_gid, owner.pw_name, switch=True)
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Account(found.pw_uid, found.pw_gid, found.pw_name, switch=True)
    raise CannotStart(
        "PostgreSQL does not run as root and this system has no user postgres or nobody:"
        " start xzepr as another user, or name a database with --database-url"
    )


def clean_environment() -> dict[str, str]:
    """Our environment without what would change how PostgreSQL starts (PGPORT, PGDATA, the locale)."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}


def hub_user() -> str:
    """The name of the hub's own account, as PostgreSQL's peer authentication will see it."""
    return _name_of(os.getuid())


def _known(uid: int) -> bool:
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
            f"the user id {uid} has no name on this system, which PostgreSQL needs:"
            " start xzepr as a named user, or give it a database with --database-url"
        ) from None
