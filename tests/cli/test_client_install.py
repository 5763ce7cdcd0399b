"""Commands that speak to a hub run without the packages of the extra `server`; other commands name the extra."""

import importlib.metadata
import re
import subprocess
import sys

import pytest

from xzepr.cli import FAMILIES

RUN = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

REFUSED = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Refuse())
find_spec = __import__("importlib.util").util.find_spec
__import__("importlib.util").util.find_spec = lambda name: None if name in REFUSED else find_spec(name)
from xzepr.__main__ import main
main()
"""
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")


def normalized(name: str) -> str:
    """Returns a distribution's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(distribution: str, found: set[str]) -> set[str]:
    """Adds a distribution to `found`, with all that it requires without extras."""
    found.add(normalized(distribution))
    for line in importlib.metadata.requires(distribution) or ():
        match = REQUIREMENT.match(line)
        if match and "extra ==" not in line and normalized(match[0]) not in found:
            try:
                required(match[0], found)
            except importlib.metadata.PackageNotFoundError:
                continue  # a marker excludes it here
    return found


def server_modules() -> str:
    """Returns the modules, separated by commas, of all installed distributions that the client does not require."""
    kept = required("xzepr", set())
    owners = importlib.metadata.packages_distributions()
    return ",".join(module for module, names in owners.items() if not kept & {normalized(name) for name in names})


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs xzepr in a process that cannot import the server's packages."""
    command = [sys.executable, "-c", RUN, server_modules(), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_extra_holds_the_heavy_packages():
    assert {"psycopg", "strawberry", "uvicorn", "aiokafka"} <= set(server_modules().split(","))


@pytest.mark.parametrize("family", [family.name for family in FAMILIES if not family.server])
def test_client_command_needs_no_server_package(family: str):
    ended = run(family, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("family", ["serve", "migrate", "demo"])
def test_server_command_names_the_missing_extra(family: str):
    ended = run(family)
    assert ended.returncode == 1
    assert (
        ended.stderr == f"xzepr: xzepr {family} needs the server, which is not installed: pip install 'xzepr[server]'\n"
    )


def test_version_names_the_revision():
    assert re.fullmatch(r"xzepr [0-9.]+( \(revision [0-9a-f]{12}\+?\))?\n", run("--version").stdout)
