"""`xzepr events` records each event once, lists events by filter, and follows them over lost connections."""

from collections.abc import Iterator

import pytest

from tests.support.command_line import CommandLineUser, RunningCommand
from tests.support.postgres import temporary_folder
from tests.support.server import ServedHub

UNIT = ("app", "1.0", "1", "linux", "rpm")


def receiver(user: CommandLineUser, name: str, schema: str = "{}") -> str:
    """Creates a receiver and returns its id."""
    text = f'receivers: [{{name: "{name}", type: t, version: "1", description: d, schema: {schema}}}]'
    (user.folder / "receiver.yaml").write_text(text)
    result = user("apply", "-f", "receiver.yaml", "--json")
    assert result.code == 0, result.err
    return str(result.json[0]["id"])


def event_file(user: CommandLineUser, text: str) -> str:
    """Writes a file with this text and returns its name."""
    (user.folder / "event.json").write_text(text)
    return "event.json"


def test_list_filters_recorded_events(admin: CommandLineUser) -> None:
    id = receiver(admin, "listed")
    recorded = admin.record("listed", *UNIT)
    admin.record(id, *UNIT, success=False)
    newest, oldest = admin("events", "list", "--receiver", "listed", "--json").json
    assert oldest["id"] == recorded["event"]["id"]
    assert (newest["success"], newest["eventReceiver"]["name"]) == (False, "listed")
    assert len(admin("events", "list", "--receiver", id, "--success", "--json").json) == 1
    assert admin("events", "list", "--receiver", id, "--name", "other", "--json").json == []
    assert admin("events", "list", "--receiver", id, "--before", newest["recordedAt"], "--json").json == [oldest]
    assert admin("events", "list", "--receiver", id, "--limit", "1").out.split("\t")[1:3] == ["FAILED", "listed"]


def test_list_reads_more_than_one_page(admin: CommandLineUser) -> None:
    id = receiver(admin, "many")
    unit: dict[str, object] = dict(zip(("name", "version", "release", "platformId", "package"), UNIT, strict=True))
    events: list[dict[str, object]] = [
        {**unit, "description": "d", "payload": {}, "success": True, "eventReceiverId": id}
    ] * 130
    admin.ask(
        "mutation ($events: [CreateEventInput!]!)"
        " { createEvents(input: {events: $events}) { results { problems { code } } } }",
        events=events,
    )
    listed = admin("events", "list", "--receiver", id, "--limit", "120", "--json").json
    assert len({event["id"] for event in listed}) == 120


def test_idempotency_key_records_once(admin: CommandLineUser) -> None:
    receiver(admin, "once")
    arguments = ["events", "create", "-f", "event.json", "--idempotency-key", "cli-once"]
    event_file(
        admin,
        '{"receiver": {"name": "once", "type": "t"}, "name": "a", "version": "1", "release": "1", "platformId": "p", '
        '"package": "k", "description": "d", "payload": {"n": 18446744073709551615}, "success": true}',
    )
    assert admin(*arguments).out.startswith("Recorded: event ")
    assert admin(*arguments).out.startswith("Was already recorded: event ")
    conflict = admin(*arguments, "--failure")
    assert conflict.code == 1
    (event,) = admin("events", "list", "--receiver", "once", "--json").json
    assert event["payload"] == {"n": 18446744073709551615}


def test_invalid_payload_reports_each_location(admin: CommandLineUser) -> None:
    receiver(admin, "strict", "{properties: {size: {type: integer}, name: {type: string}}}")
    event = (
        '{"receiver": "strict", "name": "a", "version": "1", "release": "1", "platformId": "p", "package": "k", '
        '"description": "d", "success": true, "payload": {"size": "x", "name": 1}}'
    )
    result = admin("events", "create", "-f", event_file(admin, event))
    assert (result.code, result.out) == (1, "")
    assert "payload/size: " in result.err
    assert "payload/name: " in result.err
    assert admin("events", "list", "--receiver", "strict", "--json").json == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "event.json is not JSON"),
        ("[]", "event.json must contain one event"),
        ('{"platform_id": "x"}', "did you mean platformId?"),
        ('{"payload": 18446744073709551616}', "event.json has values that cannot be stored exactly: at /payload"),
        ('{"receiver": 5}', "receiver must be a name"),
        ('{"receiver": "x", "eventReceiverId": "y"}', "twice"),
        ("{}", "an event needs --name, --version, --release, --platform-id, --package, --description"),
    ],
)
def test_malformed_event_file_is_rejected_locally(anonymous: CommandLineUser, text: str, message: str) -> None:
    result = anonymous("events", "create", "-f", event_file(anonymous, text))
    assert (result.code, result.out) == (1, "")
    assert message in result.err


def test_unknown_or_ambiguous_receiver_is_an_error(admin: CommandLineUser) -> None:
    assert "has no receiver 'missing'" in admin("events", "list", "--receiver", "missing").err
    receiver(admin, "twofold")
    (admin.folder / "receiver.yaml").write_text(
        'receivers: [{name: twofold, type: t, version: "2", description: d, schema: {}}]'
    )
    admin("apply", "-f", "receiver.yaml")
    assert "the hub has 2 receivers 'twofold'" in admin("events", "list", "--receiver", "twofold").err
    result = admin("events", "list", "--receiver", "twofold", "--receiver-version", "2")
    assert result.code == 0


def test_create_only_key_records_an_event(admin: CommandLineUser) -> None:
    id = receiver(admin, "narrow")
    key = admin.ask('mutation { createApiKey(input: {name: "ci", permissions: [EVENT_CREATE]}) { secret } }')
    result = admin.record(id, *UNIT, XZEPR_API_KEY=key["createApiKey"]["secret"])
    assert "gates" not in result
    assert len(admin("events", "list", "--receiver", id, "--json").json) == 1


def test_escape_sequences_in_names_are_escaped(admin: CommandLineUser) -> None:
    id = receiver(admin, "escapes")
    admin.record(id, "a\x1b[2Jb\tc\nd", *UNIT[1:])
    (line,) = admin("events", "list", "--receiver", id).out.splitlines()
    assert "a\\x1b[2Jb\\tc\\nd" in line


def test_tail_applies_kind_plus_receiver_filters(admin: CommandLineUser) -> None:
    id = receiver(admin, "tailed")
    tail = admin.start("events", "tail", "--from-start", "--kind", "event.recorded", "--receiver", id, "--json")
    other = receiver(admin, "not-tailed")
    cursors = [admin.record(receiver_id, *UNIT)["cursor"] for receiver_id in (id, other, id)]
    tail.until(lambda tail: len(tail.out) == 2)
    assert [_cursor(line) for line in tail.out] == [cursors[0], cursors[2]]
    resumed = admin("events", "tail", "--after", cursors[0], "--receiver", id, "--limit", "1", "--json")
    assert (resumed.code, _cursor(resumed.out)) == (0, cursors[2])


def test_tail_rejects_the_cursor_of_another_stream(admin: CommandLineUser) -> None:
    receiver(admin, "head")
    result = admin("events", "tail", "--after", "1-AAAAAAAA")
    assert result.code == 1
    assert result.err.count("\n") == 1


def test_unknown_kind_suggests_the_nearest(admin: CommandLineUser) -> None:
    assert "did you mean event.recorded?" in admin("events", "tail", "--kind", "event.record").err


def _cursor(line: str) -> str:
    return line.split('"cursor":"', 1)[1].split('"', 1)[0]


def test_tail_continues_after_a_hub_crash(own_hub: list[ServedHub], anonymous: CommandLineUser) -> None:
    user, hub = anonymous, own_hub[0]
    user.hub = hub.url
    user.log_in("admin", hub.admin_password)
    receiver(user, "r")
    first = user.record("r", *UNIT)["cursor"]
    tail: RunningCommand = user.start("events", "tail", "--after", first, "--json")
    second = user.record("r", *UNIT)["cursor"]
    tail.until(lambda tail: len(tail.out) == 1)
    hub.kill()
    tail.until(lambda tail: any("trying again" in line for line in tail.err))
    own_hub.append(ServedHub.start(hub.data_dir, port=hub.port))
    user.log_in("admin", hub.admin_password)
    third = user.record("r", *UNIT)["cursor"]
    tail.until(lambda tail: len(tail.out) == 2)
    assert [_cursor(line) for line in tail.out] == [second, third]


@pytest.fixture
def small_hub() -> Iterator[ServedHub]:
    """A hub with a limit of one subscription."""
    with temporary_folder() as folder:
        hub = ServedHub.start(folder / "data", environ={"XZEPR__STREAM__MAX_SUBSCRIPTIONS": "1"})
        yield hub
        hub.stop()


@pytest.mark.slow
def test_tail_waits_for_a_slot_on_a_full_hub(small_hub: ServedHub, anonymous: CommandLineUser) -> None:
    user = anonymous
    user.hub = small_hub.url
    user.log_in("admin", small_hub.admin_password)
    receiver(user, "r")
    first = user.record("r", *UNIT)["cursor"]
    tail = user.start("events", "tail", "--after", first, "--json")
    second = user.record("r", *UNIT)["cursor"]
    tail.until(lambda tail: len(tail.out) == 1)
    waiting_tail = user.start("events", "tail", "--after", first, "--json")
    waiting_tail.until(lambda tail: any("trying again" in line for line in tail.err))
    tail.process.kill()
    waiting_tail.until(lambda tail: len(tail.out) == 1)
    assert _cursor(waiting_tail.out[0]) == second


def test_payload_is_given_inline(admin: CommandLineUser) -> None:
    unit = ("--name", "n", "--version", "1", "--release", "1", "--platform-id", "p", "--package", "k")
    create = ("events", "create", "--receiver", "not-there", *unit, "--description", "d", "--success", "--payload")
    assert admin(*create, '{"failed": 0}').err.startswith(f"xzepr: the hub at {admin.hub} has no receiver")
    assert admin(*create, '{"failed": ').err.startswith("xzepr: --payload is not JSON: ")
    assert "cannot be read" in admin(*create, "no-such-file.json").err
