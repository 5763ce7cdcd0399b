"""The commit-msg hook accepts the subjects that CONTRIBUTING.md describes, and `make install` sets it."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = ROOT / ".ci/commit-msg"

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or shutil.which("make") is None, reason="needs git and make"
)


def run(command: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs a command without the user's configuration of git."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "MAKE"))}
    environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def check(message: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs the hook's script on a message."""
    (folder / "message").write_text(message, encoding="utf-8")
    return run(["sh", str(HOOK), "message"], folder)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A new git repository with the Makefile and the scripts."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    assert run(["git", "init", "--quiet"], folder).returncode == 0
    return folder


def install(folder: Path) -> str:
    """Runs `make install` as if all packages were installed. Returns its output."""
    result = run(["make", "--old-file=.venv/.installed-dev", "install"], folder)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def commit(subject: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Makes an empty commit."""
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    return run(["git", *author, "commit", "--quiet", "--allow-empty", "--message", subject], folder)


@pytest.mark.parametrize(
    "message",
    [
        "Add a hook",
        "Reword the relay\n\nIt was a riddle. Added, fixed and renamed things.\n",
        "\n# a comment\nKeep the subject after comments\n# another one\n",
        "Address a slow start",
        "Use 72 characters" + "s" * 55,
        "Accept " + "é" * 65,
        "Merge branch 'a-branch-with-a-long-name' of the remote repository into another one",
        'Revert "Who catches up has a fifth of the loop while others create, for with a third it took longer."',
        "fixup! added a hook.",
        "squash! added a hook.",
        "",
    ],
)
def test_good_subject_is_accepted(message: str, tmp_path: Path) -> None:
    result = check(message, tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("Use 73 characters" + "s" * 56, "it has 73 characters; at most 72 are allowed"),
        ("Accept " + "é" * 66, "it has 73 characters; at most 72 are allowed"),
        (
            "Wrap a subject into two lines,\nwhich git joins to one that is longer than allowed\n",
            "it has 81 characters",
        ),
        ("add a hook", "begin it with a capital letter"),
        ("relay: Add a hook", "begin it with a capital letter"),
        ("Add a hook.", "do not end it with a period"),
        ("Added a hook", "use the imperative: Add, not Added"),
        ("Adds a hook", "use the imperative: Add, not Adds"),
        ("Adding a hook", "use the imperative: Add, not Adding"),
        ("Fixed a race", "use the imperative: Fix, not Fixed"),
        ("Fixes: a race", "use the imperative: Fix, not Fixes"),
        ("Fixing a race", "use the imperative: Fix, not Fixing"),
        ("Renamed a class", "use the imperative: Rename, not Renamed"),
        ("Renames a class", "use the imperative: Rename, not Renames"),
        ("Renaming a class", "use the imperative: Rename, not Renaming"),
        ("Updated the locks", "use the imperative: Update, not Updated"),
        ("Updates the locks", "use the imperative: Update, not Updates"),
        ("Updating the locks", "use the imperative: Update, not Updating"),
        ("Dropped a table", "use the imperative: Drop, not Dropped"),
        ("Tidied a folder", "use the imperative: Tidy, not Tidied"),
        ("Made it fast", "use the imperative: Make, not Made"),
    ],
)
def test_bad_subject_is_rejected_with_its_cause(message: str, cause: str, tmp_path: Path) -> None:
    result = check(message, tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"commit subject: {cause}" in result.stderr


def test_all_causes_are_reported_together(tmp_path: Path) -> None:
    causes = check("fixed a race between two processes that start at the same time on one machine.", tmp_path).stderr
    assert causes.count("commit subject:") == 3


def test_install_sets_hook_that_git_runs(checkout: Path) -> None:
    assert install(checkout) == ""
    assert (checkout / ".git/hooks/commit-msg").read_text() == HOOK.read_text()
    rejected = commit("Added a hook", checkout)
    assert rejected.returncode == 1
    assert "use the imperative: Add, not Added" in rejected.stderr
    assert commit("Add a hook", checkout).returncode == 0
    assert run(["git", "log", "--format=%s"], checkout).stdout == "Add a hook\n"


def test_install_replaces_earlier_version_of_hook(checkout: Path) -> None:
    hook = checkout / ".git/hooks/commit-msg"
    hook.write_text(HOOK.read_text().replace("max_characters=72", "max_characters=50"))
    assert [install(checkout), install(checkout)] == ["", ""]
    assert hook.read_text() == HOOK.read_text()
    assert os.access(hook, os.X_OK)


def test_install_keeps_another_hook(checkout: Path) -> None:
    hook = checkout / ".git/hooks/commit-msg"
    hook.write_text("#!/bin/sh\n")
    assert "is another hook, so .ci/commit-msg is not installed" in install(checkout)
    assert hook.read_text() == "#!/bin/sh\n"


def test_install_keeps_folder_of_hooks_path(checkout: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    assert run(["git", "config", "core.hooksPath", str(hooks)], checkout).returncode == 0
    assert "git's core.hooksPath is set, so .ci/commit-msg is not installed" in install(checkout)
    assert not hooks.exists()


def test_install_sets_no_hook_outside_repository(checkout: Path) -> None:
    unpacked = checkout / "unpacked"
    unpacked.mkdir()
    shutil.copy(ROOT / "Makefile", unpacked)
    shutil.copytree(ROOT / ".ci", unpacked / ".ci")
    assert install(unpacked) == ""
    assert not (checkout / ".git/hooks/commit-msg").exists()
