"""A script that drops root privileges, makes the process end with the hub, and executes a program.

`python -I -S launch.py UID GID PARENT PROGRAM [ARGUMENT …]`: UID `-` keeps the user, and with PARENT `-` the process
does not end with the hub. A `preexec_fn` would not do: code between fork and exec can deadlock if the process has
threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _end_with(parent: int) -> None:
    """Makes Linux send SIGINT, PostgreSQL's fast shutdown, when the parent's thread that started this process ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # the parent ended before the call
        sys.exit(1)


def main(arguments: list[str]) -> None:
    """Executes the program."""
    uid, gid, parent, *command = arguments
    if uid != "-":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if parent != "-":  # after setuid, which clears the request
        _end_with(int(parent))
    os.execv(command[0], command)  # noqa: S606 - the hub names the program by its full path


if __name__ == "__main__":
    main(sys.argv[1:])
