"""Runs as a script of its own: gives up root, ties the process to the hub's life, and becomes the program.

`python -I -S launch.py UID GID PARENT PROGRAM [ARGUMENT …]`; UID `-` keeps the user, PARENT `-` ties to nobody.
It is a program and not a `preexec_fn` because code between fork and exec can deadlock in a process that has threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _end_with(parent: int) -> None:
    """Ask Linux for SIGINT, which is PostgreSQL's fast shutdown, when the parent's spawning thread ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def main(arguments: list[str]) -> None:
    """Become the program."""
    uid, gid, parent, *command = arguments
    if uid != "-":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if parent != "-":  # after setuid, because a change of user clears it
        _end_with(int(parent))
    os.execv(command[0], command)  # noqa: S606 - the hub names the program by its full path


if __name__ == "__main__":
    main(sys.argv[1:])
