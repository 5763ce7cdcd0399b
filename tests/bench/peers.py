"""GraphQL servers in other languages, measured beside the hub's last commit by a program outside this repository.

Its folder has a program `run`, which measures all servers in one run and writes each measurement to a JSON file.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from tests.bench.load import LoadError
from tests.bench.session import Session
from tests.bench.table.figures import Measurement

ROOT = Path(__file__).parents[2]
FOLDER = ROOT.parent / "shared" / "peers"  # beside the checkout
TOOLS = ("git", "make", "npm", "cargo", "wrk", "python3.11")
SERVERS = ("xzepr", "mercurius", "rust", "hand", "hand_group")
CASES = {"T": "typename", "L": "list", "LR": "list_receiver", "ONE": "event", "CREATE": "create", "BATCH": "batches"}
_FIGURES = {"rps": "rate", "p50": "p50", "p99": "p99", "server_ms": "server_ms", "database_ms": "database_ms"}


def missing(folder: Path) -> list[str]:
    """Returns what the peers need and this machine has not."""
    program = [] if (folder / "run").is_file() else ["the folder of the peers (--peers FOLDER)"]
    return program + [tool for tool in TOOLS if shutil.which(tool) is None]


def measure(session: Session) -> None:
    """Runs the peers and keeps their measurements. Raises LoadError if an answer was wrong."""
    folder, options = session.options.peers, session.options
    if folder is None:
        session.notes["peers"] = f"skipped: {'--quick without --peers' if options.quick else '--no-peers'}"
        return
    if needs := missing(folder):
        session.notes["peers"] = f"skipped: needs {', '.join(needs)}"
        return
    if options.quick:
        session.notes["peers"] = "skipped: --quick measures Mercurius only"
    began = time.time()
    size = ["--quick"] if options.quick else ["--rounds", str(options.rounds), "--seconds", str(round(options.seconds))]
    command = [sys.executable, str(folder / "run"), "--product", str(ROOT), "--servers", ",".join(SERVERS), *size]
    status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    written = Path(os.environ.get("TMPDIR", tempfile.gettempdir()), "xzepr-peers", "last.json")
    if status or not written.exists() or written.stat().st_mtime < began:
        raise LoadError(f"the run of the peers failed with exit status {status}")
    for each in parse(orjson.loads(written.read_bytes())):
        session.record(each.case, each.server, each.round, each.figures)


def parse(measured: Iterable[Mapping[str, Any]]) -> list[Measurement]:
    """Returns the peers' measurements, with `peers:` before the name of each server. Raises LoadError on errors."""
    measurements: list[Measurement] = []
    for each in measured:
        if each["errors"]:
            raise LoadError(f"{each['errors']} errors of {each['server']} in {each['case']}")
        figures = {name: float(each[theirs]) for theirs, name in _FIGURES.items()}
        figures |= {"each": 1000 / figures["rate"], "others": float(each["others"])}
        measurements.append(Measurement(CASES[each["case"]], f"peers:{each['server']}", each["round"], figures))
    return measurements
