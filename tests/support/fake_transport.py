"""A transport without a socket, for tests of protocols."""

import asyncio
from typing import Any


class FakeTransport(asyncio.Transport):
    """Collects written bytes, and notes calls that end or pause the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.writes = 0
        self.reads = True
        self.ended = self.closed = self.aborted = False

    def write(self, data: Any) -> None:
        self.written += data
        self.writes += 1

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True
