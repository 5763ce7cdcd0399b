"""`xzepr demo` plays a pipeline, reports the outcome by its exit code and deletes all its files."""

import signal
from pathlib import Path

import pytest

from tests.support.command_line import CommandLineUser
from tests.support.postgres import temporary_folder

SECONDS = 120  # to create a hub with its PostgreSQL, play the demo and delete them


def leftovers(folder: Path) -> list[str]:
    """Returns the names of XZepr's temporary files in a folder."""
    return [path.name for path in folder.glob("xzepr-*")]


def test_demo_removes_its_hub_at_the_end(anonymous: CommandLineUser) -> None:
    with temporary_folder() as folder:
        demo = anonymous.start("demo", "--json", environ={"TMPDIR": str(folder)})
        assert demo.wait(SECONDS) == 0, demo.err
        assert leftovers(folder) == []
    kinds = [line.split('"kind":"')[1].split('"')[0] for line in demo.out]
    assert kinds == [*["RECEIVER_CREATED"] * 5, "GROUP_CREATED", *["EVENT_RECORDED"] * 6, "GATE_COMPLETED"]


@pytest.mark.slow
def test_interrupted_demo_removes_its_hub(anonymous: CommandLineUser) -> None:
    with temporary_folder() as folder:
        demo = anonymous.start("demo", environ={"TMPDIR": str(folder)})
        demo.until(lambda demo: any("answers at" in line for line in demo.out), SECONDS)
        demo.process.send_signal(signal.SIGTERM)
        assert demo.wait(SECONDS) in (0, 143)
        assert leftovers(folder) == []
