"""Files are replaced or created whole, and a failure leaves nothing behind."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from xzepr.infra.files import create_file, replace_file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_replaced_file_has_the_new_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "private" / "file"
    replace_file(path, b"first", 0o600)
    assert (path.read_bytes(), mode_of(path), mode_of(path.parent)) == (b"first", 0o600, 0o700)
    path.chmod(0o666)
    replace_file(path, b"second", 0o644)
    assert (path.read_bytes(), mode_of(path)) == (b"second", 0o644)
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_symlink_is_replaced_rather_than_followed(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("precious")
    link.symlink_to(victim)
    replace_file(link, b"secret", 0o600)
    assert (victim.read_text(), link.read_text(), link.is_symlink()) == ("precious", "secret", False)


def test_existing_file_is_not_created_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert create_file(path, b"first", 0o600)
    assert not create_file(path, b"second", 0o600)
    assert (path.read_bytes(), mode_of(path)) == (b"first", 0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("write", [replace_file, create_file])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes, int], object], error: BaseException
) -> None:
    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write(tmp_path / "file", b"content", 0o600)
    assert list(tmp_path.iterdir()) == []


def test_failed_replacement_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(path, b"content", 0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_reader_sees_the_old_or_the_new_content(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", {b"a" * 100_000, b"b" * 100_000}
    replace_file(path, min(contents), 0o600)
    done = threading.Event()

    def write() -> None:
        for content in [*contents] * 20:
            replace_file(path, content, 0o600)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_bytes() in contents
    writer.join()
