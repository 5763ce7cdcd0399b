"""Settings: the order of their sources, the errors that stop a start, and the masking of secrets."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from xzepr.core.errors import CannotStart
from xzepr.settings import LoadedSettings, Settings, load
from xzepr.settings.masking import MASK, mask, shown_settings
from xzepr.settings.registry import keys, parts_of, value_of

Load = Callable[..., LoadedSettings]
ErrorMessage = Callable[..., str]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Returns `load` for a temporary folder and only these variables; writes `files` into the folder first."""

    def read(
        files: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
        config: str | None = None,
    ) -> LoadedSettings:
        for name, text in (files or {}).items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        config_path = Path(config) if config else None
        return load(config_file=config_path, flags=flags, environ=environ or {}, cwd=tmp_path)

    return read


@pytest.fixture
def error_message(read: Load) -> ErrorMessage:
    """Returns the message of the error for invalid settings."""

    def error_message(*arguments: Any, **keywords: Any) -> str:
        with pytest.raises(CannotStart) as error:
            read(*arguments, **keywords)
        return str(error.value)

    return error_message


def test_defaults_apply_without_any_source(read: Load) -> None:
    loaded = read()
    assert loaded.settings == Settings()
    assert (loaded.settings.server.host, loaded.settings.server.port) == ("127.0.0.1", 8042)
    assert set(loaded.origins.values()) == {"default"}


def test_settings_created_in_code_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XZEPR__SERVER__PORT", "1")
    assert Settings().server.port == 8042


def test_settings_are_immutable() -> None:
    with pytest.raises(ValidationError):
        Settings().server.port = 1


SOURCES: list[tuple[str, dict[str, Any]]] = [
    ("config/default.yaml:1", {"files": {"config/default.yaml": "server: {port: 1}"}}),
    ("config/production.yaml:1", {"files": {"config/production.yaml": "server: {port: 2}"}}),
    ("custom.yaml:1", {"files": {"custom.yaml": "server: {port: 3}"}, "config": "custom.yaml"}),
    ("XZEPR__SERVER__PORT", {"environ": {"XZEPR__SERVER__PORT": "4"}}),
    ("command line", {"flags": {"server.port": 5}}),
]


@pytest.mark.parametrize("last", range(1, len(SOURCES) + 1))
def test_later_source_overrides_earlier_ones(read: Load, last: int) -> None:
    together: dict[str, Any] = {"files": {}, "environ": {"APP_ENV": "production"}}
    for _, source in SOURCES[:last]:
        for name, value in source.items():
            together[name] = {**together.get(name, {}), **value} if isinstance(value, dict) else value
    loaded = read(**together)
    assert loaded.settings.server.port == last
    assert loaded.origins["server.port"] == SOURCES[last - 1][0]


def test_sources_are_merged_key_by_key(read: Load) -> None:
    files = {
        "config/default.yaml": "database:\n  max_connections: 30\n  min_connections: 3\n",
        "config/development.yaml": "database:\n  min_connections: 4\n",
    }
    database = read(files, {"XZEPR__DATABASE__LOCK_TIMEOUT_SECONDS": "1.5"}).settings.database
    assert (database.max_connections, database.min_connections, database.lock_timeout_seconds) == (30, 4, 1.5)


@pytest.mark.parametrize("source", [{"environ": {"APP_ENV": "test"}}, {"flags": {"environment": "test"}}])
def test_environment_selects_its_file(read: Load, source: dict[str, Any]) -> None:
    files = {"config/test.yaml": "environment: test\nserver: {port: 7}", "config/development.yaml": "server: {port: 8}"}
    assert read(files, **source).settings.server.port == 7


def test_default_file_may_select_the_environment(read: Load) -> None:
    files = {"config/default.yaml": "environment: test", "config/test.yaml": "server: {port: 7}"}
    assert read(files).settings.server.port == 7


def test_file_contradicting_its_environment_is_rejected(error_message: ErrorMessage) -> None:
    message = error_message({"config/test.yaml": "environment: other"}, {"APP_ENV": "test"})
    assert "environment (config/test.yaml:1) contradicts the one that chose this file (APP_ENV)" in message


def test_environment_name_cannot_be_a_path(error_message: ErrorMessage) -> None:
    assert "environment (APP_ENV)" in error_message({"secret.yaml": "server: {port: 7}"}, {"APP_ENV": "../secret"})


@pytest.mark.parametrize("text", ["a:9092,b:9092", " a:9092 , b:9092, ", '["a:9092", "b:9092"]'])
def test_list_is_read_from_commas_or_json(read: Load, text: str) -> None:
    assert read(environ={"XZEPR__KAFKA__BROKERS": text}).settings.kafka.brokers == ("a:9092", "b:9092")


def test_empty_variable_clears_the_setting(read: Load) -> None:
    files = {"config/default.yaml": "database: {url: 'postgresql://h/d'}\nkafka: {brokers: [a]}"}
    loaded = read(files, {"XZEPR__DATABASE__URL": "", "XZEPR__KAFKA__BROKERS": "", "REDIS_URL": ""})
    assert loaded.settings.database.url is None
    assert loaded.settings.kafka.brokers == ()
    assert loaded.origins["redis.url"] == "default"


def test_empty_data_dir_is_rejected(error_message: ErrorMessage) -> None:
    assert "data_dir (XZEPR__DATA_DIR)" in error_message(environ={"XZEPR__DATA_DIR": ""})


def test_full_variable_name_overrides_its_alias(read: Load) -> None:
    environ = {"DATABASE_URL": "postgresql://old/d"}
    assert read(environ=environ).origins["database.url"] == "DATABASE_URL"
    loaded = read(environ={**environ, "XZEPR__DATABASE__URL": "postgresql://new/d"})
    assert loaded.settings.database.url is not None
    assert loaded.settings.database.url.get_secret_value() == "postgresql://new/d"


def test_secret_is_read_from_its_file(read: Load) -> None:
    loaded = read({"pw": "correct horse battery\n"}, {"XZEPR__AUTH__ADMIN_PASSWORD_FILE": "pw"})
    assert loaded.settings.auth.admin_password is not None
    assert loaded.settings.auth.admin_password.get_secret_value() == "correct horse battery"
    assert loaded.origins["auth.admin_password"] == "XZEPR__AUTH__ADMIN_PASSWORD_FILE=pw"


def test_duplicate_or_unreadable_secret_is_rejected(error_message: ErrorMessage) -> None:
    name = "XZEPR__AUTH__ADMIN_PASSWORD"
    assert "is set twice" in error_message({"pw": "x" * 12}, {name: "x" * 12, f"{name}_FILE": "pw"})
    assert f"{name}_FILE=nowhere cannot be read: No such file" in error_message(environ={f"{name}_FILE": "nowhere"})


def test_only_secrets_are_read_from_files(error_message: ErrorMessage) -> None:
    assert "XZEPR__SERVER__PORT_FILE is not a setting" in error_message(environ={"XZEPR__SERVER__PORT_FILE": "x"})


def _file(text: str) -> dict[str, Any]:
    return {"files": {"config/default.yaml": text}}


def _variable(name: str, value: str) -> dict[str, Any]:
    return {"environ": {f"XZEPR__{name}": value}}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (_variable("SERVER__PROT", "1"), "XZEPR__SERVER__PROT is not a setting; did you mean XZEPR__SERVER__PORT?"),
        (_variable("server__port", "1"), "XZEPR__server__port is not a setting; did you mean XZEPR__SERVER__PORT?"),
        (_variable("SERVER", "{}"), "XZEPR__SERVER is not a setting"),
        (_file("\nsevrer:\n  port: 1"), "sevrer (config/default.yaml:2) is unknown; did you mean server?"),
        (_file("server:\n  prot: 1"), "server.prot (config/default.yaml:2) is unknown; did you mean server.port?"),
        (_file("server: {min_connections: 1}"), "did you mean database.min_connections?"),
        (_file("server: 5"), "server (config/default.yaml:1) should hold keys, not a value"),
        (_file("- 5"), "the file (config/default.yaml:1) should hold keys, not a value"),
        (
            _file("server: {port: 1}\nserver: {port: 1}"),
            "(config/default.yaml:2) is set already (config/default.yaml:1)",
        ),
        ({"config": "nowhere.yaml"}, "nowhere.yaml cannot be read: No such file or directory"),
        ({"flags": {"server.prot": 1}}, "server.prot (command line) is unknown; did you mean server.port?"),
        (_file("server: {port: true}"), "server.port (config/default.yaml:1): should be a number, not true or false"),
        (_variable("SERVER__PORT", "many"), "server.port (XZEPR__SERVER__PORT): should be a valid integer"),
        (_variable("TELEMETRY__LOG_LEVEL", "loud"), "(XZEPR__TELEMETRY__LOG_LEVEL): should be 'debug'"),
        (_variable("KAFKA__BROKERS", "[a"), "kafka.brokers (XZEPR__KAFKA__BROKERS) should be a list"),
        (_file("kafka: {brokers: a}"), "kafka.brokers (config/default.yaml:1): should be a list"),
        (_file("kafka: {brokers: [a, 5]}"), "item 2 should be a valid string"),
        (_variable("SERVER__PUBLIC_URL", "hub"), "server.public_url (XZEPR__SERVER__PUBLIC_URL): should be an address"),
        (_variable("EVENTS__IDEMPOTENCY_HOURS", "23"), "should be greater than or equal to 24"),
    ],
)
def test_invalid_setting_is_reported_with_its_source(
    error_message: ErrorMessage, source: dict[str, Any], message: str
) -> None:
    error = error_message(**source)
    assert error.startswith("a setting cannot be used:\n")
    assert message in error


@pytest.mark.parametrize(
    ("flags", "first", "second"),
    [
        ({"database.min_connections": 11}, "database.min_connections", "database.max_connections"),
        ({"jwt.private_key_path": "k"}, "jwt.private_key_path", "jwt.public_key_path"),
        ({"jwt.public_key_path": "k"}, "jwt.public_key_path", "jwt.private_key_path"),
        ({"auth.admin_password": "short"}, "auth.admin_password", "auth.password_min_length"),
        ({"kafka.topic": "xzepr.relay"}, "kafka.topic", "kafka.state_topic"),
        ({"kafka.security_protocol": "sasl_ssl"}, "kafka.security_protocol", "kafka.sasl_mechanism"),
        ({"kafka.sasl_username": "relay"}, "kafka.sasl_username", "kafka.security_protocol"),
        ({"kafka.sasl_password": "secret"}, "kafka.sasl_password", "kafka.security_protocol"),
        ({"kafka.tls_ca_file": "ca.pem"}, "kafka.tls_ca_file", "kafka.security_protocol"),
        ({"kafka.security_protocol": "SSL", "kafka.tls_cert_file": "a"}, "kafka.tls_cert_file", "kafka.tls_key_file"),
        ({"server.max_request_bytes": 1}, "server.max_request_bytes", "events.max_payload_bytes"),
        ({"recorder.queue_size": 1}, "recorder.queue_size", "events.max_batch_items"),
    ],
)
def test_contradiction_names_both_settings(
    error_message: ErrorMessage, flags: dict[str, Any], first: str, second: str
) -> None:
    message = error_message(flags=flags)
    assert f"{first} (command line)" in message
    assert f"{second} (default)" in message


def test_one_message_lists_every_invalid_setting(error_message: ErrorMessage) -> None:
    text = "database:\n  min_connections: 9\n  max_connections: 8\n  lock_timeout_seconds: -1\n"
    environ = {"XZEPR__SERVER__PORT": "many", "XZEPR__NOTHING": "1"}
    message = error_message({"config/default.yaml": text}, environ)
    assert message.startswith("4 settings cannot be used:")
    for part in ("database.min_connections", "lock_timeout_seconds", "server.port", "XZEPR__NOTHING"):
        assert part in message


def test_invalid_setting_is_not_reported_twice(error_message: ErrorMessage) -> None:
    message = error_message(flags={"database.max_connections": "few", "database.min_connections": 50})
    assert message.startswith("a setting cannot be used:")


def test_empty_section_or_file_sets_nothing(read: Load) -> None:
    files = {"config/default.yaml": "server:\n# port: 1\nkafka:\n", "config/development.yaml": "# nothing\n"}
    assert read(files).settings == Settings()


SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "source",
    [
        {"environ": {"XZEPR__DATABASE__URL": f"mysql://u:{SECRET}@h/d"}},
        {"environ": {"XZEPR__AUTH__ADMIN_PASSWORD": SECRET, "XZEPR__AUTH__PASSWORD_MIN_LENGTH": "99"}},
        {"files": {"config/default.yaml": f"auth:\n  admin_password: [{SECRET}]"}},
        {"files": {"config/default.yaml": f"auth:\n  admin_password: *{SECRET}"}},
        {"files": {"config/default.yaml": f"auth:\n  admin_password: '{SECRET}\n"}},
        {"files": {"config/default.yaml": f"auth: {SECRET}"}},
        {"files": {"pw": SECRET}, "environ": {"XZEPR__DATABASE__URL_FILE": "pw"}},
    ],
)
def test_error_message_contains_no_secret(error_message: ErrorMessage, source: dict[str, Any]) -> None:
    assert SECRET not in error_message(**source)


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        ("postgresql://u:hunter2@h:5/d", f"postgresql://u:{MASK}@h:5/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql+psycopg2://h", "postgresql+psycopg2://h"),
        ("redis://:hunter2@h", f"redis://:{MASK}@h"),
        ("postgresql://h/d?password=hunter2", f"postgresql://h/d?{MASK}"),
        ("postgresql://h/d?password=hunter2@x", MASK),
        ("postgresql://u:hun@ter2@h/d", MASK),
        ("postgresql://u:hun/ter2@h/d", MASK),
        ("postgresql://u:hun?ter2@h/d", MASK),
        ("postgresql://u:hun#ter2@h/d", MASK),
        ("host=h password=hunter2", MASK),
        ("hunter2", MASK),
    ],
)
def test_masked_secret_shows_only_a_plain_url(secret: str, expected: str) -> None:
    assert mask(secret) == expected


def test_shown_settings_contain_no_secret(read: Load) -> None:
    secrets = {key.variable: f"postgresql://u:{SECRET}@h/d" for key in keys().values() if key.secret and not key.later}
    sasl = {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "PLAIN", "SASL_USERNAME": "relay"}
    loaded = read(environ=secrets | {f"XZEPR__KAFKA__{name}": value for name, value in sasl.items()})
    assert {line.key for line in shown_settings(loaded)} == set(keys())
    assert SECRET not in repr(shown_settings(loaded))
    assert SECRET not in repr(loaded)


WITHOUT_FEATURE = {
    "server.enable_https": ("true", "false"),
    "jwt.refresh_token_expiration": ("86400", ""),
    "security.cors.allow_credentials": ("true", "false"),
    "security.cors.max_age_seconds": ("600", ""),
    "security.rate_limit.anonymous_rpm": ("60", ""),
    "security.rate_limit.authenticated_rpm": ("600", ""),
    "security.rate_limit.admin_rpm": ("6000", ""),
    "telemetry.jaeger_endpoint": ("jaeger:6831", ""),
    "redis.url": ("redis://r", ""),
}  # a value that asks for the feature, and the one that means "off"


def test_list_of_settings_without_feature_is_complete() -> None:
    assert {name for name, key in keys().items() if key.later is not None} == set(WITHOUT_FEATURE)


@pytest.mark.parametrize("name", sorted(WITHOUT_FEATURE))
def test_setting_without_feature_is_refused(name: str, read: Load, error_message: ErrorMessage) -> None:
    on, off = WITHOUT_FEATURE[name]
    variable = keys()[name].variable
    message = error_message(environ={variable: on})
    assert f"{name} ({variable}) cannot be used yet: " in message
    assert on not in message.partition("cannot be used yet")[2]
    assert value_of(read(environ={variable: off}).settings, name) == keys()[name].field.default


def test_settings_without_feature_are_refused_together(error_message: ErrorMessage) -> None:
    files = {"config/default.yaml": "security: {rate_limit: {admin_rpm: 5}}\nserver: {port: 70000}"}
    message = error_message(files, {"XZEPR__SERVER__ENABLE_HTTPS": "true"})
    assert "server.port" in message
    assert "server.enable_https" in message
    assert "security.rate_limit.admin_rpm (config/default.yaml:1)" in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kafka.brokers", "localhost:abc"),
        ("kafka.brokers", "a:9092;b:9092"),
        ("kafka.brokers", ":9092"),
        ("kafka.brokers", "a:70000"),
        ("kafka.brokers", "HTTP://a:9092"),
        ("kafka.brokers", "[a"),
        ("server.allowed_hosts", "*.example.com"),
        ("server.allowed_hosts", "http://hub"),
        ("database.statement_timeout_seconds", "9999999"),
        ("database.statement_timeout_seconds", "0.0001"),
        ("stream.retention_hours", "99999999999"),
        ("stream.partition_size", "99999999999999999999"),
        ("events.idempotency_hours", "99999999999"),
        ("events.max_payload_depth", "255"),
        ("jwt.access_token_expiration", "1000000000000"),
    ],
)
def test_value_that_can_never_work_is_rejected(name: str, text: str, error_message: ErrorMessage) -> None:
    message = error_message(environ={keys()[name].variable: text})
    assert message.count("\n") == 1
    assert f"{name} ({keys()[name].variable})" in message


def test_every_number_has_bounds_at_both_ends() -> None:
    unbounded = [
        name
        for name, key in keys().items()
        if {int, float} & set(parts_of(key.field.annotation))
        and "le=" not in repr(key.field.metadata)
        and "le=" not in repr(key.field.annotation)
    ]
    assert unbounded == []


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("kafka.brokers", "[::1]:9092, b:9093", ("[::1]:9092", "b:9093")),
        ("kafka.brokers", '["a", "b:1"]', ("a", "b:1")),
        ("kafka.brokers", "SASL_SSL://a.example:9092,PLAINTEXT://b", ("a.example:9092", "b")),
        ("server.allowed_hosts", "[::1],::1,hub:80,*", ("[::1]", "::1", "hub:80", "*")),
        ("server.allowed_hosts", "m\u00fcller.example", ("xn--mller-kva.example",)),
        ("data_dir", "~/x", Path.home() / "x"),
        ("kafka.tls_ca_file", "", None),
    ],
)
def test_value_is_understood(name: str, text: str, value: object, read: Load) -> None:
    assert value_of(read(environ={keys()[name].variable: text}).settings, name) == value


def test_files_are_yaml_1_2(read: Load, error_message: ErrorMessage) -> None:
    text = "\ufeffenvironment: no\nserver: {port: 010, workers: 0x2}\ndatabase: {max_connections: 0o17}"
    settings = read({"config/default.yaml": text}).settings
    assert (settings.environment, settings.server.port, settings.server.workers) == ("no", 10, 2)
    assert settings.database.max_connections == 15
    assert "kafka.enabled" in error_message({"config/default.yaml": "kafka: {enabled: .inf}"})


def test_secret_file_may_begin_with_byte_order_mark(read: Load) -> None:
    loaded = read({"pw": "\ufeffcorrect horse battery\r\n"}, {"XZEPR__AUTH__ADMIN_PASSWORD_FILE": "pw"})
    assert loaded.settings.auth.admin_password is not None
    assert loaded.settings.auth.admin_password.get_secret_value() == "correct horse battery"
