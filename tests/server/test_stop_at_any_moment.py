"""Signals at any moment of a start or a stop: every process ends cleanly and soon, and leaves nothing running."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.postgres import temporary_folder
from tests.support.server import ADMIN_PASSWORD, ROOT, clean_environment, copy_data_folder

WITHIN_SECONDS = 60  # from the signal, on a busy machine; a quiet one needs one
# Commands with the seconds that they run at most before the signal.
COMMANDS: dict[str, tuple[tuple[str, ...], float]] = {
    "serve": (("serve", "--port", "0"), 4.0),
    "first start": (("serve", "--port", "0"), 5.0),
    "workers": (("serve", "--port", "0", "--workers", "2"), 6.0),
    "work": (("work",), 2.0),
    "migrate": (("migrate",), 1.0),
    "config": (("config",), 0.8),
    "list": (("events", "list"), 0.8),
    "help": (("--help",), 0.4),
}


def interrupted(folder: Path, name: str, number: signal.Signals, seconds: float) -> None:
    """Sends a command a signal after some seconds, and asserts that it ends as documented."""
    arguments = COMMANDS[name][0]
    local = arguments[0] in ("serve", "work", "migrate", "config")
    if local and name != "first start":
        copy_data_folder(folder / "data")
    variables = {"XZEPR__AUTH__ADMIN_PASSWORD": ADMIN_PASSWORD, "XZEPR_HUB": "http://127.0.0.1:9"}
    process = subprocess.Popen(
        [sys.executable, "-m", "xzepr", *arguments, *(["--data-dir", str(folder / "data")] if local else [])],
        cwd=folder,
        env=clean_environment() | variables | {"XZEPR_API_KEY": "xzepr_unused", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_default_interrupt,
    )
    try:
        time.sleep(seconds)
        process.send_signal(number)
        output, _ = process.communicate(timeout=WITHIN_SECONDS)
    finally:
        process.kill()
    where = f"{name}, {number.name} after {seconds:.2f} s: exit code {process.returncode}\n{output}"
    assert "Traceback" not in output or _is_before_our_code(output), where
    # A server stops with 0; a command with 130, or as SIGTERM ends any program; or it ended before the signal.
    assert process.returncode in (0, 1, 130, -signal.SIGTERM, -signal.SIGINT), where
    assert not (folder / "data" / "postgres" / "postmaster.pid").exists(), where


def _default_interrupt() -> None:
    """Undoes that shells let their background processes, such as a test run, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _is_before_our_code(output: str) -> bool:
    """Returns whether Python itself was interrupted, before it ran the first line of the command."""
    return str(ROOT / "xzepr") not in output


@pytest.mark.parametrize(
    ("name", "number", "seconds"),
    [
        ("serve", signal.SIGTERM, 0.6),
        ("serve", signal.SIGINT, 1.1),
        ("workers", signal.SIGTERM, 1.6),
        ("list", signal.SIGINT, 0.15),
    ],
)
def test_signal_while_starting_ends_the_process(name: str, number: signal.Signals, seconds: float) -> None:
    with temporary_folder() as folder:
        interrupted(folder, name, number, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_signal_at_any_of_25_moments_ends_the_process(name: str) -> None:
    chance = random.Random(name)
    for _ in range(25):
        with temporary_folder() as folder:
            interrupted(
                folder, name, chance.choice([signal.SIGINT, signal.SIGTERM]), chance.random() * COMMANDS[name][1]
            )
