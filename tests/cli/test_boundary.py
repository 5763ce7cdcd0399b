"""The edges of commands show no traceback, and exit codes tell whether an event was recorded."""

import os
import subprocess
import sys

import pytest

from tests.cli.test_gates import REST, make_gate
from tests.support.command_line import CommandLineUser
from xzepr.cli.output import printable

RECORD = (
    '"$0" -m xzepr events create --receiver edge-a --success --name edge --version 1.0 --release 1 --platform-id linux '
    "--package rpm --payload - --description "
)


def shell(user: CommandLineUser, script: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a script in bash; `$0` is this Python."""
    return subprocess.run(
        ["bash", "-c", script, sys.executable],
        input=b"{}",
        capture_output=True,
        cwd=user.folder,
        env=user.environ | environ,
        check=False,
    )


def test_outcome_is_told_whatever_the_streams_accept(admin: CommandLineUser) -> None:
    make_gate(admin, "edge")
    closed = shell(admin, RECORD + "closed >&-")
    assert (closed.returncode, closed.stderr) == (0, b"")
    full = shell(admin, RECORD + "full >/dev/full")
    reason = b"xzepr: the command ended, but its output cannot be written: No space left on device\n"
    assert (full.returncode, full.stderr) == (4, reason)
    latin = shell(admin, RECORD + r"$'\u2713' >&- && " + '"$0" -m xzepr events list', PYTHONIOENCODING="latin-1")
    assert (latin.returncode, latin.stderr) == (0, b"")
    assert rb"\u2713" in latin.stdout
    refused = shell(admin, RECORD + r"$'fix: G\xf6del'")
    assert (refused.returncode, refused.stderr.count(b"\n")) == (1, 1)
    assert b"an argument is not valid UTF-8" in refused.stderr
    unit = shell(admin, r""""$0" -m xzepr gates wait edge $'\xf6' """ + " ".join(REST) + " --timeout 0")
    assert unit.returncode == 3
    listed = {event["description"] for event in admin("events", "list", "--name", "edge", "--json").json}
    assert listed == {"closed", "full", "✓"}


def test_unusable_api_key_is_one_sentence(anonymous: CommandLineUser) -> None:
    result = anonymous("events", "list", environ={"XZEPR_API_KEY": "xzepr_\u201d"})
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "XZEPR_API_KEY contains characters" in result.err


def test_no_home_folder_is_one_sentence(anonymous: CommandLineUser, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(*_: object) -> None:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("xzepr.cli.client.credentials.user_config_path", no_home)
    result = anonymous("events", "list")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "set HOME" in result.err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u200bb", r"a\u200bb"),
        ("\u202etxt", r"\u202etxt"),
        ("\u3164", r"\u3164"),
        ("\x1b[0m", r"\x1b[0m"),
        ("é✓", "é✓"),
    ],
    ids=["zero width", "right to left", "filler", "escape", "visible"],
)
def test_invisible_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert os.fsencode(printable("\udcf6"))
