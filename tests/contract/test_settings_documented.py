"""The settings: the reference page matches the code, the examples load, and the promised keys exist."""

import ast
from pathlib import Path

import pytest

from xzepr.settings import load
from xzepr.settings.reference import reference
from xzepr.settings.registry import keys

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "xzepr"
EXAMPLES = ROOT / "deploy" / "config"

# Applied by the settings package itself: `environment` chooses a file.
READ_WHILE_LOADING = {"environment"}

PROMISED = {
    "server": "host port enable_https",
    "database": "url max_connections min_connections connection_timeout_seconds",
    "jwt": "private_key_path public_key_path issuer audience access_token_expiration refresh_token_expiration",
    "security.cors": "allowed_origins allow_credentials max_age_seconds",
    "security.rate_limit": "anonymous_rpm authenticated_rpm admin_rpm",
    "telemetry": "jaeger_endpoint log_level json_logs metrics_enabled tracing_enabled",
}


def test_settings_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert page == reference(), "run `xzepr config --reference > docs/reference/settings.md`"


def test_every_setting_has_a_description() -> None:
    assert [name for name, key in keys().items() if not key.field.description] == []


def test_every_usable_setting_is_read() -> None:
    read = set[str]()
    for path in set(PACKAGE.rglob("*.py")) - set((PACKAGE / "settings").rglob("*.py")):
        read |= {node.attr for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Attribute)}
    usable = {name for name, key in keys().items() if key.later is None} - READ_WHILE_LOADING
    assert {name for name in usable if name.rpartition(".")[2] not in read} == set()


def test_promised_settings_exist() -> None:
    promised = {f"{section}.{name}" for section, names in PROMISED.items() for name in names.split()}
    assert promised <= set(keys())


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_example_settings_load(example: str, tmp_path: Path) -> None:
    assert str(EXAMPLES / example) in repr(load(config_file=EXAMPLES / example, environ={}, cwd=tmp_path).origins)


def test_examples_load_as_config_folder(tmp_path: Path) -> None:
    (tmp_path / "config").symlink_to(EXAMPLES)
    loaded = load(environ={"APP_ENV": "production"}, cwd=tmp_path)
    assert loaded.settings.server.host == "0.0.0.0"
    assert loaded.origins["server.port"].startswith("config/default.yaml:")
