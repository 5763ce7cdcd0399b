"""The version with the revision of its source, such as `0.1.0 (revision 0ab507681f2c)`."""

import importlib
import subprocess
from pathlib import Path

from xzepr import __version__

_GIT = ("git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*")


def version() -> str:
    """Returns the version, and the revision if it is known. A `+` after the revision means changed files."""
    revision = _built_revision() or _checked_out_revision(Path(__file__).parents[2])
    return f"{__version__} (revision {revision})" if revision else __version__


def _built_revision() -> str:
    """Returns what the build hook recorded in a wheel or a source distribution."""
    try:
        return importlib.import_module("xzepr._revision").REVISION
    except ModuleNotFoundError:
        return ""


def _checked_out_revision(root: Path) -> str:
    """Returns the commit of a checkout; nothing without one or without git."""
    if not (root / ".git").exists():
        return ""
    try:
        described = subprocess.run(_GIT, cwd=root, capture_output=True, text=True, timeout=5)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return described.stdout.strip()
