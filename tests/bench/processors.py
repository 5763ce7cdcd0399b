"""Processor time and memory of processes, and of the whole machine, from Linux's /proc."""

import os
from collections import defaultdict
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def family(root: int) -> list[int]:
    """Returns the ids of a process and all its descendants."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _fields(int(entry))):
            children[int(fields[1])].append(int(entry))
    found, waiting = list[int](), [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children[found[-1]]
    return found


def family_seconds(root: int) -> float:
    """Returns the processor time of a process, of its descendants, and of their children that have ended."""
    fields = [_fields(process) for process in family(root)]
    return sum(sum(map(int, each[11:15])) for each in fields if each) / _TICKS_PER_SECOND


def machine_seconds() -> float:
    """Returns the processor time that all processes have used, and that the machine's host took away."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_SECOND


def resident_kib(process: int) -> float:
    """Returns the resident memory of a process in KiB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE_BYTES / 1024


def model() -> str:
    """Returns the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _fields(process: int) -> list[str]:
    """Returns the fields of a process from its state on; an empty list if it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
