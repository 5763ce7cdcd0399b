"""The files in `deploy/`: they set only known settings and are consistent with one another."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from xzepr.api.hosts import AllowedHosts
from xzepr.cli import assemble
from xzepr.settings import Settings, load
from xzepr.settings.registry import keys

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
HUBS = [name for name, service in SERVICES.items() if service["image"] == "xzepr"]
KNOWN = {key.variable for key in keys().values()} | {f"{key.variable}_FILE" for key in keys().values() if key.secret}


def instructions(word: str) -> list[str]:
    """Returns the arguments of each `word` instruction in the Dockerfile, with continued lines joined."""
    return re.findall(rf"^{word} (.*)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)


def image_variables() -> dict[str, str]:
    """Returns the environment variables of the image."""
    pairs = [pair for line in instructions("ENV") for pair in shlex.split(line)]
    return dict(pair.split("=", 1) for pair in pairs)


def settings_of(service: str, cwd: Path) -> Settings:
    """Returns the settings with which a service starts. Raises CannotStart if they are invalid."""
    return load(environ=image_variables() | SERVICES[service]["environment"], cwd=cwd).settings


def test_image_starts_with_its_own_settings(tmp_path: Path) -> None:
    loaded = load(environ=image_variables(), cwd=tmp_path)
    assert str(loaded.settings.data_dir) in instructions("VOLUME")
    assert instructions("EXPOSE") == [str(loaded.settings.server.port)]


@pytest.mark.parametrize("service", HUBS)
def test_settings_of_every_hub_take_effect(service: str, tmp_path: Path) -> None:
    settings = settings_of(service, tmp_path)
    assert settings.server.host == "0.0.0.0"
    for path in (settings.jwt.private_key_path, settings.jwt.public_key_path):
        assert path is not None
        assert path.is_relative_to(settings.data_dir), "keys must outlive the container"
    assert f"hub:{settings.data_dir}" in SERVICES[service]["volumes"]


def test_every_variable_in_deploy_is_a_setting() -> None:
    variables: set[str] = set()
    for path in (ROOT / "deploy").rglob("*"):
        if path.is_file() and "node_modules" not in path.parts:
            variables |= set(re.findall(r"\bXZEPR__[A-Z0-9_]+", path.read_text(errors="replace")))
    assert variables, "no variable was found, so none was checked"
    assert variables <= KNOWN


def test_hub_uses_the_database_service(tmp_path: Path) -> None:
    url, postgres = settings_of("hub", tmp_path).database.url, SERVICES["postgres"]["environment"]
    assert url is not None
    user, password, name = (postgres[f"POSTGRES_{part}"] for part in ("USER", "PASSWORD", "DB"))
    assert url.get_secret_value() == f"postgresql://{user}:{password}@postgres:5432/{name}"


def test_hub_uses_the_broker_service(tmp_path: Path) -> None:
    (broker,) = settings_of("hub", tmp_path).kafka.brokers
    assert f"INSIDE://{broker}" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")


def test_public_url_matches_the_published_port(tmp_path: Path) -> None:
    settings = settings_of("hub", tmp_path)
    _, published_port, container_port = SERVICES["hub"]["ports"][0].split(":")
    assert int(container_port) == settings.server.port
    assert settings.server.public_url == f"http://localhost:{published_port}"


def test_containers_may_use_the_names_of_the_hubs(tmp_path: Path) -> None:
    for service in ("hub", "work"):
        hosts = AllowedHosts(settings_of(service, tmp_path).server.allowed_hosts)
        assert hosts.allow(f"{service}:8042")
        assert hosts.allow(f"{COMPOSE['name']}-{service}-1:8042")
        assert not hosts.allow("postgres:8042")


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_hub_service_waits_for_its_dependencies() -> None:
    assert set(SERVICES["hub"]["depends_on"]) == {"keys", "migrate"}
    dependencies = [name for service in SERVICES.values() for name in service.get("depends_on", {})]
    assert set(dependencies) <= SERVICES.keys()


@pytest.mark.parametrize("service", [name for name in HUBS if "command" in SERVICES[name]])
def test_command_of_every_service_is_valid(service: str) -> None:
    family, *options = SERVICES[service]["command"]
    commands: Any = get_command(assemble([family]))  # the types of click are private to typer
    assert commands.commands[family].make_context(family, list(options)).params


def test_only_the_work_service_relays() -> None:
    assert "--no-relay" in SERVICES["hub"]["command"]
    assert SERVICES["work"]["command"] == ["work", "--port", image_variables()["XZEPR__SERVER__PORT"]]


def test_image_installs_only_hashed_packages() -> None:
    assert instructions("USER") == ["xzepr"]
    installs = [line for line in instructions("RUN") if "pip install" in line]
    assert len(installs) == 2
    for line in installs:
        assert "--no-deps" in line
        assert "--require-hashes" in line or "--no-build-isolation" in line


def test_files_copied_into_the_image_exist() -> None:
    lines = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    included = {line[1:] for line in lines if line.startswith("!")}
    copied = {name for line in instructions("COPY") if not line.startswith("--from") for name in shlex.split(line)[:-1]}
    assert copied == included
    assert all((ROOT / name).exists() for name in copied)
