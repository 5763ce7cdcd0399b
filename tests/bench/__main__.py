"""`make bench`: measures the hub beside hand-written endpoints and other servers, and compares it with its goals."""

import argparse
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from tests.bench import batches, execution, fanout, history, latency, peers, requests, slow, start
from tests.bench.contest import load_generator
from tests.bench.environment import Environment, environment
from tests.bench.processors import model
from tests.bench.session import QUICK, Options, Session, prepare
from tests.bench.stage import stage
from tests.bench.table import report
from tests.bench.table.goals import FAILED
from tests.bench.table.results import NoRunError, Run, read, write

RESULTS = peers.ROOT / ".bench"
_OTHERS: dict[str, Callable[[Session], None]] = {
    "batches": batches.measure,
    "execution": execution.measure,
    "history": history.measure,
    "fanout": fanout.measure,
    "start": start.measure,
    "peers": peers.measure,
    "latency": latency.measure,
    "slow": slow.measure,
}
GOAL_SECTIONS = (*requests.SECTIONS, "batches", "execution", "history", "fanout", "start", "peers")
SECTIONS = (*GOAL_SECTIONS, "latency", "slow")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    add = parser.add_argument
    add("sections", nargs="*", help=f"{', '.join(SECTIONS)} or all; by default, all with a goal")
    add("--rounds", type=int, help="rounds of each measurement (5)")
    add("--seconds", type=float, help="seconds of each measurement (4)")
    add("--quick", action="store_true", help="the table in about two minutes, not for comparisons")
    add("--history", type=int, help="earlier events in `history` (5,000,000)")
    add("--subscribers", type=int, help="subscribers in `fanout` (1,000)")
    add("--peers", type=Path, metavar="FOLDER", help="folder of servers in other languages")
    add("--no-peers", action="store_true", help="leave those servers out")
    add("--json", type=Path, metavar="FILE", help="where to write the run; by default, in .bench/")
    add("--compare", type=Path, metavar="FILE", help="an earlier run to compare with")
    add("--show", type=Path, metavar="FILE", help="show an earlier run instead of measuring")
    add("--markdown", action="store_true", help="print the table of goals as Markdown")
    chosen = parser.parse_args(words)
    chosen.sections = list(SECTIONS if "all" in chosen.sections else chosen.sections or GOAL_SECTIONS)
    if unknown := set(chosen.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}: choose from {', '.join(SECTIONS)}")
    return chosen


def options(chosen: argparse.Namespace) -> Options:
    """Returns the size of the run."""
    size = QUICK if chosen.quick else Options(peers=peers.FOLDER)
    names = ("rounds", "seconds", "history", "subscribers", "peers")
    given = {name: value for name in names if (value := getattr(chosen, name)) is not None}
    return replace(size, **(given | ({"peers": None} if chosen.no_peers else {})))


def run(sections: Sequence[str], size: Options) -> Run:
    """Measures the sections. A section that fails leaves a note, and the others are measured."""
    with environment() as running:
        session = Session(running, size, prepare(running, size.events))
        facts = _facts(running, size)
        with ExitStack() as stack:
            loaded = [name for name in requests.SECTIONS if name in sections]
            servers = stack.enter_context(stage(session)) if loaded else None
            for name in loaded:
                assert servers is not None
                _attempt(session, name, lambda name=name, servers=servers: requests.measure(session, servers, name))
        for name, measure in _OTHERS.items():
            if name in sections:
                _attempt(session, name, lambda measure=measure: measure(session))
        return Run(facts, sections, session.notes, session.measurements)


def _attempt(session: Session, section: str, measure: Callable[[], None]) -> None:
    print(f"{section} …", file=sys.stderr, flush=True)
    try:
        measure()
    except Exception as error:
        session.notes[section] = f"{FAILED}{error}"
        traceback.print_exc()


def _facts(running: Environment, size: Options) -> dict[str, object]:
    with psycopg.connect(running.postgres.url) as connection:
        postgresql = connection.info.parameter_status("server_version")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("+" if _git("status", "--porcelain", "xzepr") else ""),
        "quick": size.quick,
        "rounds": size.rounds,
        "seconds": size.seconds,
        "history": size.history,
        "subscribers": size.subscribers,
        "events": size.events,
        "processor": model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "postgresql": postgresql,
        "load_generator": load_generator(),
    }


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(peers.ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> int:
    """Measures, prints and writes a run. Returns 1 if a measurement failed."""
    chosen = arguments(sys.argv[1:])
    try:
        before = read(chosen.compare) if chosen.compare else None
        after = read(chosen.show) if chosen.show else run(chosen.sections, options(chosen))
    except NoRunError as error:
        sys.exit(f"make bench: {error}")
    if not chosen.show:
        name = f"{str(after.facts['date'])[:19]}-{after.facts['commit']}{'-quick' if after.facts['quick'] else ''}.json"
        path = chosen.json or RESULTS / name.replace(":", "")
        write(after, path)
        print(f"written to {path}", file=sys.stderr)
    print(report.markdown(after)) if chosen.markdown else report.show(after)
    if before is not None:
        report.show_comparison(before, after)
    return int(any(note.startswith(FAILED) for note in after.notes.values()))


if __name__ == "__main__":
    sys.exit(main())
