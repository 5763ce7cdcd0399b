"""Files that appear whole: a reader, and a process that starts after a crash, sees the old content or the new."""

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Writes a file with these permissions, and replaces an existing one. Creates missing folders as private."""
    with _draft(path, content, mode) as draft:
        draft.replace(path)


def create_file(path: Path, content: bytes, mode: int) -> bool:
    """Writes a file like `replace_file` unless it exists; returns whether it was created."""
    with _draft(path, content, mode) as draft:
        try:
            # Unlike a rename, a link never replaces a file that another process has just created.
            os.link(draft, path)
        except FileExistsError:
            return False
    return True


@contextmanager
def _draft(path: Path, content: bytes, mode: int) -> Generator[Path]:
    """Writes the content to the disk under a temporary name, which is removed at the end."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp opens with O_EXCL and 0600: other users cannot read the file even before its mode is set.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
