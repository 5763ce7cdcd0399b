"""The memory that the embedded PostgreSQL may use for pages of its tables and indexes."""

import os
from contextlib import suppress
from pathlib import Path

_MIN_MEGABYTES = 128  # PostgreSQL's default
_MAX_MEGABYTES = 2048
_SHARE = 8  # of the memory; PostgreSQL takes it only as its data grow
_CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of a container, in versions 2 and 1


def shared_buffers(cgroups: Path = _CGROUPS) -> str:
    """Returns PostgreSQL's setting: an eighth of the memory of this machine or container, from 128 MB to 2 GB."""
    megabytes = _memory(cgroups) // _SHARE // 2**20
    return f"{min(max(megabytes, _MIN_MEGABYTES), _MAX_MEGABYTES)}MB"


def _memory(cgroups: Path) -> int:
    """Returns the bytes of memory, or 0 if the system does not tell."""
    sizes: list[int] = []
    with suppress(AttributeError, OSError, ValueError):  # Windows has no sysconf
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in _LIMITS:
        with suppress(OSError, ValueError):  # a file that says `max` sets no limit
            sizes.append(int((cgroups / name).read_text()))
    return min(sizes, default=0)
