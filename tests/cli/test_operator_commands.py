"""The commands of an operator: the table of families, `config`, `keys` and `migrate`."""

import importlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from xzepr.__main__ import main
from xzepr.cli import FAMILIES
from xzepr.infra.crypto import load_keys
from xzepr.settings import Settings
from xzepr.settings.registry import keys

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str


Xzepr = Callable[..., CommandResult]


@pytest.fixture
def xzepr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Xzepr:
    """Runs commands in `tmp_path` without the developer's own settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("XZEPR__")] + ["APP_ENV", "DATABASE_URL", "REDIS_URL"]:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, environ: Mapping[str, str] | None = None) -> CommandResult:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["xzepr", *arguments])
            for name, value in (environ or {}).items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        out, err = capsys.readouterr()
        return CommandResult(ended.value.code if isinstance(ended.value.code, int) else 0, out, err)

    return run


def test_help_lists_families_without_importing_them(tmp_path: Path) -> None:
    code = (
        "import sys; from xzepr.cli import FAMILIES, assemble; assemble(['--help'])(['--help'], standalone_mode=False);"
        "assert not {f.target.partition(':')[0] for f in FAMILIES} & set(sys.modules);"
        "assert 'pydantic' not in sys.modules and 'psycopg' not in sys.modules"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    for family in FAMILIES:
        assert family.name in result.stdout


def test_package_runs_as_the_command(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "xzepr", "--version"]
    result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout[:6]) == (0, "xzepr ")


def test_every_listed_family_exists() -> None:
    for family in FAMILIES:
        module, _, name = family.target.partition(":")
        assert hasattr(importlib.import_module(module), name)


def test_misspelt_command_suggests_the_nearest(xzepr: Xzepr) -> None:
    result = xzepr("confg")
    assert result.code == 2
    assert "config" in result.err


def test_config_prints_every_key_with_its_origin(xzepr: Xzepr) -> None:
    environ = {"DATABASE_URL": "postgresql://u:hunter2@h/d", "XZEPR__KAFKA__ENABLED": "0"}
    result = xzepr("config", "--data-dir", "elsewhere", environ=environ)
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in result.out.splitlines()}
    assert set(lines) == set(keys())
    assert lines["database.url"] == ["postgresql://u:********@h/d", "DATABASE_URL"]
    assert lines["data_dir"] == ["elsewhere", "command line"]
    assert lines["kafka.enabled"] == ["false", "XZEPR__KAFKA__ENABLED"]
    assert "hunter2" not in result.out + result.err


def test_config_json_has_typed_values(xzepr: Xzepr, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("kafka: {brokers: [a, b]}")
    result = xzepr("config", "--json", "--config", "settings.yaml")
    lines = {line["key"]: line for line in json.loads(result.out)}
    assert lines["server.port"] == {"key": "server.port", "value": 8042, "origin": "default"}
    assert lines["kafka.brokers"]["value"] == ["a", "b"]
    assert lines["kafka.brokers"]["origin"] == "settings.yaml:1"


def test_unusable_settings_are_one_message(xzepr: Xzepr) -> None:
    result = xzepr("config", environ={"XZEPR__SERVER__PROT": "1"})
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "xzepr: a setting cannot be used:\n  XZEPR__SERVER__PROT is not a setting; did you mean XZEPR__SERVER__PORT?\n"
    )


def test_keys_init_prints_the_variables_of_the_new_pair(xzepr: Xzepr, tmp_path: Path) -> None:
    result = xzepr("keys", "init", "--data-dir", "state")
    assert result.code == 0, result.err
    folder = tmp_path / "state" / "keys"
    assert load_keys(folder / "private.pem", folder / "public.pem")
    modes = [stat.S_IMODE((folder / name).stat().st_mode) for name in ("private.pem", "public.pem")]
    assert modes == [0o600, 0o644]
    printed = dict(line.split("=", 1) for line in result.out.splitlines())
    config = xzepr("config", "--json", environ=printed)
    assert config.code == 0, config.err
    assert printed["XZEPR__JWT__PRIVATE_KEY_PATH"] == str(folder / "private.pem")


@pytest.mark.parametrize("existing", ["a.pem", "b.pem"])
def test_keys_init_never_overwrites(xzepr: Xzepr, tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("existing")
    result = xzepr("keys", "init", "--private", "a.pem", "--public", "b.pem")
    assert result.code == 1
    assert f"xzepr: {existing} exists" in result.err
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "existing"


def test_keys_init_needs_both_names_or_none(xzepr: Xzepr, tmp_path: Path) -> None:
    result = xzepr("keys", "init", "--private", "a.pem")
    assert result.code == 1
    assert "a key pair needs both of its files" in result.err
    assert list(tmp_path.iterdir()) == []


def test_unwritable_keys_are_one_sentence(xzepr: Xzepr, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = xzepr("keys", "init", "--private", "file/a.pem", "--public", "file/b.pem")
    assert result.code == 1
    assert result.err.startswith("xzepr: the keys cannot be written")
    assert "Traceback" not in result.err


@pytest.mark.parametrize("option", [(), ("--dry-run",)])
def test_migrate_without_database_starts_none(xzepr: Xzepr, tmp_path: Path, option: tuple[str, ...]) -> None:
    result = xzepr("migrate", *option)
    assert result.code == 1
    assert "`xzepr serve` migrates the embedded database when it starts" in result.err
    assert not (tmp_path / Settings().data_dir).exists()


def test_migrate_sql_without_database_prints_all(xzepr: Xzepr) -> None:
    result = xzepr("migrate", "--sql")
    assert result.code == 0, result.err
    assert "CREATE TABLE" in result.out


def test_migrate_applies_the_listed_migrations(xzepr: Xzepr, empty_database_url: str) -> None:
    environ = {"DATABASE_URL": empty_database_url}
    planned = xzepr("migrate", "--dry-run", environ=environ).out.splitlines()
    repeated = xzepr("migrate", "--dry-run", environ=environ).out.splitlines()
    assert planned == repeated != []
    result = xzepr("migrate", environ=environ)
    assert result.out.splitlines() == [line.replace("to apply", "applied") for line in planned]
    assert xzepr("migrate", environ=environ).out == "The schema is up to date.\n"
    assert xzepr("migrate", "--sql", environ=environ).out.strip() == ""


def test_migrate_options_are_mutually_exclusive(xzepr: Xzepr) -> None:
    result = xzepr("migrate", "--dry-run", "--sql")
    assert result.code == 1
    assert "choose one" in result.err
