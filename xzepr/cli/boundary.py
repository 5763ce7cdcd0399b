"""The edges of a command: its arguments, and standard streams that may be closed, full or not UTF-8."""

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xzepr.core.errors import CannotStart

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OUTPUT_FAILED = 4  # exit code: the command has done its work, and its output could not be written


class OutputFailed(Exception):
    """Standard output does not accept the command's output."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror or str(cause))
        self.reader_ended = cause.errno == errno.EPIPE
        """Whether the reader of a pipe ended, as in `| head -1`."""


def check_arguments(arguments: Sequence[str]) -> None:
    """Raises CannotStart for an argument that is not UTF-8, which the hub could not store."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(argument).decode(errors="backslashreplace")
            raise CannotStart(f"an argument is not valid UTF-8: {shown!r}") from None


def open_standard_streams() -> None:
    """Replaces closed streams by the null device, and prepares standard output for what the terminal cannot show.

    Characters that the encoding lacks are escaped. A failed write raises OutputFailed, and later ones are ignored.
    """
    # In this order: a closed descriptor is reused by the next file that is opened, which must not be a socket.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the process ends
    if sys.stdout is sys.__stdout__:
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(sys.stdout.fileno())),
            encoding=sys.stdout.encoding,
            errors="backslashreplace",
            line_buffering=sys.stdout.isatty(),
        )


class _Output(io.FileIO):
    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._failed = False

    def write(self, data: "ReadableBuffer", /) -> int:
        """Writes as FileIO does. Raises OutputFailed once; then accepts and drops everything."""
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            raise OutputFailed(error) from error
