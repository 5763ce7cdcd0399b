"""`xzepr stream`: the status of routes and processes, resuming a stopped route, and dead letters."""

import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import psycopg
import pytest

from tests.support.command_line import CommandLineUser
from tests.support.server import ServedHub
from xzepr.cli.stream_status import duration
from xzepr.infra.crypto import create_key_pair

TOPIC = "somewhere.else"


@contextmanager
def operating(database_url: str, user: CommandLineUser, folder: Path, **environ: str) -> Generator[CommandLineUser]:
    """Runs a hub on a database that the test can access, and logs its administrator in."""
    private, public = folder / "private.pem", folder / "public.pem"
    create_key_pair(private, public)
    keys = {"XZEPR__JWT__PRIVATE_KEY_PATH": str(private), "XZEPR__JWT__PUBLIC_KEY_PATH": str(public)}
    hub = ServedHub.start(folder / "data", "--database-url", database_url, environ=keys | environ)
    try:
        user.hub = hub.url
        user.log_in("admin", hub.admin_password)
        yield user
    finally:
        hub.stop()


@pytest.fixture
def operator(database_url: str, anonymous: CommandLineUser, tmp_path: Path) -> Iterator[CommandLineUser]:
    """The administrator of a hub without brokers."""
    with operating(database_url, anonymous, tmp_path) as user:
        yield user


def stop_a_route(database_url: str, *, topic: str = TOPIC) -> None:
    """Writes the row of a stopped route. No process leads it, so that an instruction stays in its row."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO relay_routes (route, state, detail) VALUES (%s, 'stopped', 'Kafka lost its data')", (topic,)
        )


def add_dead_letters(database_url: str, *positions: int) -> None:
    """Writes the rows of messages that Kafka rejected."""
    with psycopg.connect(database_url) as connection:
        for position in positions:
            connection.execute(
                "INSERT INTO dead_letters (route, position, message_id, reason) VALUES (%s, %s, %s, 'too large')",
                (TOPIC, position, f"id-{position}"),
            )


def instructions(database_url: str) -> list[tuple[str, int | None]]:
    """Returns each stopped route with the position after which it is instructed to resume."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT route, resume_after FROM relay_routes WHERE state = 'stopped' ORDER BY route")
        return [(str(route), after) for route, after in rows.fetchall()]


def record_one_message(user: CommandLineUser) -> None:
    """Creates a receiver, so that the stream has one message."""
    text = 'receivers: [{name: r, type: t, version: "1", description: d, schema: {}}]'
    (user.folder / "hub.yaml").write_text(text)
    assert user("apply", "-f", "hub.yaml").code == 0


def cells_of(name: str, out: str) -> list[list[str]]:
    """Returns the rows of all tables whose first cell is `name`."""
    return [row for row in (line.split("\t") for line in out.splitlines()) if row[0] == name]


def test_status_shows_the_head_with_each_route(operator: CommandLineUser, database_url: str) -> None:
    record_one_message(operator)
    stop_a_route(database_url)
    status = operator("stream", "status", "--json").json
    assert status["position"] == 1
    (route,) = (route for route in status["routes"] if route["route"] == TOPIC)
    assert (route["state"], route["detail"], route["published"], route["lag"]) == (
        "STOPPED",
        "Kafka lost its data",
        0,
        1,
    )
    assert (route["led"], route["leader"]) == (False, None)
    assert 0 < route["lagSeconds"] < 60
    progress, detail = cells_of(TOPIC, operator("stream", "status").out)
    assert (progress[:4], progress[6]) == ([TOPIC, "stopped", "0", "1"], "none")
    assert detail[2] == "Kafka lost its data"


def test_status_reports_missing_brokers(operator: CommandLineUser) -> None:
    result = operator("stream", "status")
    assert "no running process has kafka.brokers: once it is set, a relay publishes the whole history" in result.err
    assert "\tserve\t" in result.out


def test_status_shows_a_route_that_was_never_led(database_url: str, anonymous: CommandLineUser, tmp_path: Path) -> None:
    kafka = {"XZEPR__KAFKA__ENABLED": "false", "XZEPR__KAFKA__BROKERS": '["127.0.0.1:1"]', "XZEPR__KAFKA__TOPIC": TOPIC}
    with operating(database_url, anonymous, tmp_path, **kafka) as user:
        record_one_message(user)
        result = user("stream", "status")
    progress, detail = cells_of(TOPIC, result.out)
    assert (progress[:4], progress[6]) == ([TOPIC, "standby", "0", "1"], "none")
    assert detail[2] == "no process has led it yet: `xzepr work` does, or a server without --no-relay"
    assert result.err == ""


def test_resume_stores_the_instruction_of_a_stopped_route(operator: CommandLineUser, database_url: str) -> None:
    record_one_message(operator)
    stop_a_route(database_url)
    result = operator("stream", "resume", "--at", "1")
    assert (result.code, result.out) == (0, f"Route {TOPIC} resumes after position 1 within a second or two.\n")
    assert instructions(database_url) == [(TOPIC, 1)]
    assert operator("stream", "resume", "--republish-from", "1", "--route", TOPIC, "--json").json["after"] == 0
    assert instructions(database_url) == [(TOPIC, 0)]


def test_rejected_resume_stores_no_instruction(operator: CommandLineUser, database_url: str) -> None:
    assert "no route is stopped" in operator("stream", "resume", "--at", "0").err
    stop_a_route(database_url)
    assert "the stream has positions" in operator("stream", "resume", "--at", "5").err
    assert "there is no route 'none'" in operator("stream", "resume", "--at", "0", "--route", "none").err
    assert "give either --at" in operator("stream", "resume", "--at", "0", "--republish-from", "1").err
    stop_a_route(database_url, topic="another")
    assert "choose one with --route" in operator("stream", "resume", "--at", "0").err
    assert instructions(database_url) == [("another", None), (TOPIC, None)]


def test_dead_letters_are_listed_then_retried_or_dropped(operator: CommandLineUser, database_url: str) -> None:
    assert "no relay has led a route" in operator("stream", "dead").err
    stop_a_route(database_url)
    add_dead_letters(database_url, *range(1, 104))
    assert cells_of(TOPIC, operator("stream", "status").out)[0][5] == "103"
    lines = [line.split("\t") for line in operator("stream", "dead").out.splitlines()]
    assert [line[0] for line in lines] == [str(position) for position in range(103, 0, -1)]
    assert (lines[0][1], lines[0][2], lines[0][4]) == ("waiting", "1", "too large")
    assert operator("stream", "drop", "1", "3").out == "2 dropped.\n"
    assert operator("stream", "retry", "2", "--json").json == {"count": 1}
    letters = operator("stream", "dead", "--json").json
    states = {letter["position"]: (letter["state"], letter["by"]) for letter in letters}
    assert (states[2], states[4]) == (("RETRYING", "admin"), ("WAITING", None))
    dropped = operator("stream", "dead", "--dropped", "--json").json
    assert [(letter["position"], letter["state"], letter["by"]) for letter in dropped] == [
        (3, "DROPPED", "admin"),
        (1, "DROPPED", "admin"),
    ]
    assert operator("stream", "drop", "--all", "--route", TOPIC).out == "100 dropped.\n"


def test_unknown_dead_letter_changes_no_other(operator: CommandLineUser, database_url: str) -> None:
    stop_a_route(database_url)
    add_dead_letters(database_url, 1, 2)
    for command in ("retry", "drop"):
        assert "there is no dead letter '3'" in operator("stream", command, "1", "3").err
        assert "give either positions or --all" in operator("stream", command).err
        assert "give either positions or --all" in operator("stream", command, "1", "--all").err
        assert "there is no route 'none'" in operator("stream", command, "1", "--route", "none").err
    assert {letter["state"] for letter in operator("stream", "dead", "--json").json} == {"WAITING"}


def test_stream_commands_need_the_stream_admin_permission(admin: CommandLineUser) -> None:
    password = "a password for a manager"
    admin("users", "create", "cli-manager", "--role", "event_manager", "--password-stdin", stdin=password)
    admin.log_in("cli-manager", password)
    route_commands = (("resume", "--at", "0"), ("dead",), ("retry", "--all"), ("drop", "--all"))
    for command in (("status",), *((*words, "--route", TOPIC) for words in route_commands)):
        result = admin("stream", *command)
        assert (result.code, result.err) == (1, "xzepr: this needs the permission stream:admin\n")


def test_status_shows_the_subscribers_of_each_process(operator: CommandLineUser) -> None:
    record_one_message(operator)
    tail = operator.start("events", "tail")
    deadline = time.monotonic() + 30
    while not (process := operator("stream", "status", "--json").json["processes"][0])["clients"]["subscriptions"]:
        assert time.monotonic() < deadline, process
        time.sleep(0.1)
    assert process["role"] == "serve"
    assert process["feed"] == process["slowestSubscriber"] == {"position": 1, "lag": 0, "lagSeconds": 0.0}
    cells, subscriber_cells = cells_of(f"{process['host']}:{process['pid']}", operator("stream", "status").out)
    assert (cells[1], cells[4:]) == ("serve", ["0", "waiting for brokers"])
    assert subscriber_cells[1:] == ["1", "0", "0 s", "1", "0", "1", "0", "0 s"]
    tail.process.terminate()


@pytest.mark.slow
def test_watch_survives_a_hub_restart(own_hub: list[ServedHub], anonymous: CommandLineUser) -> None:
    first = own_hub[0]
    anonymous.hub = first.url
    anonymous.log_in("admin", first.admin_password)
    watch = anonymous.start("stream", "status", "--watch", "--json")
    watch.until(lambda watch: len(watch.out) >= 2)
    first.kill()
    watch.until(lambda watch: any("cannot be reached" in line for line in watch.err))
    printed = len(watch.out)
    own_hub.append(ServedHub.start(first.data_dir, port=first.port))
    watch.until(lambda watch: len(watch.out) > printed)
    ids = [orjson.loads(line)["processes"][-1]["id"] for line in (watch.out[0], watch.out[-1])]
    assert ids[0] != ids[1]
    assert sum("trying again" in line for line in watch.err) == 1, "the notice must appear once"
    watch.process.send_signal(signal.SIGINT)
    assert watch.wait() == 130


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.04, "0 s"), (0.44, "0.4 s"), (45, "45 s"), (720, "12 min"), (18_000, "5 h"), (260_000, "3 d")],
)
def test_duration_is_shown_in_a_readable_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
