"""A build hook that records the revision of the source in the package, for `xzepr --version`."""

import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILE = "xzepr/_revision.py"


class RevisionHook(BuildHookInterface[Any]):
    """Adds `_revision.py` to a wheel or a source distribution. Editable installs ask git when they run."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Writes the file outside the source tree. A source distribution brings its own, which is kept."""
        root = Path(self.root)
        if version == "editable" or (root / FILE).exists():
            return
        written = Path(self.directory) / "_revision.py"
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(f'"""Written by the build."""\n\nREVISION = "{_revision(root)}"\n')
        build_data["force_include"][str(written)] = FILE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the file that `initialize` wrote."""
        (Path(self.directory) / "_revision.py").unlink(missing_ok=True)


def _revision(root: Path) -> str:
    """Returns XZEPR_REVISION, else the commit that is checked out, with `+` after it if files differ; else nothing."""
    if named := os.environ.get("XZEPR_REVISION"):
        return named[:12]
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],  # noqa: S607
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return described.stdout.strip()
