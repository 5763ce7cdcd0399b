"""`xzepr gates` shows the gates of a unit, and waits for a gate with exit codes for a pipeline."""

import re
import time

import httpx2
import pytest

from tests.support.command_line import CommandLineUser
from tests.support.server import ServedHub
from xzepr.cli.client.http import HubUnreachable
from xzepr.cli.client.waiting import retry_while_away

REST = ("1.0", "1", "linux", "rpm")


@pytest.fixture
def gate(admin: CommandLineUser, request: pytest.FixtureRequest) -> str:
    """The name of a group that is named after the test, with the receivers `<name>-a` and `<name>-b`."""
    return make_gate(admin, request.node.name.removeprefix("test_")[:80])


def make_gate(admin: CommandLineUser, name: str) -> str:
    """Creates a group with the receivers `<name>-a` and `<name>-b`, and returns its name."""
    receivers = "\n".join(
        f"  - {{name: {name}-{end}, type: t, version: '1', description: d, schema: {{}}}}" for end in "ab"
    )
    group = f"  - {{name: {name}, type: t, version: '1', description: d, receivers: [{name}-a, {name}-b]}}"
    (admin.folder / "hub.yaml").write_text(f"receivers:\n{receivers}\ngroups:\n{group}\n")
    result = admin("apply", "-f", "hub.yaml")
    assert result.code == 0, result.err
    return name


def test_show_lists_each_member(admin: CommandLineUser, gate: str) -> None:
    admin.record(f"{gate}-a", gate, *REST)
    (state,) = admin("gates", "show", gate, *REST, "--json").json["gates"]
    assert [member["state"] for member in state["members"]] == ["PASSED", "MISSING"]
    admin.record(f"{gate}-b", gate, *REST, success=False)
    lines = admin("gates", "show", gate, *REST).out.splitlines()
    assert lines[0] == f"{gate} (t 1): incomplete"
    assert [line.split("\t")[0] for line in lines[1:]] == ["PASSED", "FAILED"]


def test_unknown_unit_lists_similar_units(admin: CommandLineUser, gate: str) -> None:
    admin.record(f"{gate}-a", gate, *REST)
    report = admin("gates", "show", gate, "1.1", *REST[1:], "--json").json
    assert (report["reported"], report["gates"]) == (False, [])
    assert [(unit["unit"]["version"], unit["differsIn"]) for unit in report["near"]] == [("1.0", "version")]
    text = admin("gates", "show", gate, "1.1", *REST[1:]).out
    assert f"{gate} 1.0 1 linux rpm\tversion 1.0" in text


def test_named_group_is_shown_without_any_report(admin: CommandLineUser, gate: str) -> None:
    (state,) = admin("gates", "show", gate, *REST, "--group", gate, "--json").json["gates"]
    assert [member["state"] for member in state["members"]] == ["MISSING", "MISSING"]


def test_wait_ends_when_the_gate_completes(admin: CommandLineUser, gate: str) -> None:
    admin.record(f"{gate}-a", gate, *REST)
    waiting = admin.start("gates", "wait", gate, gate, *REST, "--timeout", "60", "--json")
    began = time.monotonic()
    admin.record(f"{gate}-b", gate, *REST, success=False)
    admin.record(f"{gate}-b", gate, *REST)
    assert waiting.wait() == 0
    assert time.monotonic() - began < 30
    assert '"outcome": "COMPLETE"' in "\n".join(waiting.out)


def test_wait_returns_at_once_for_a_complete_gate(admin: CommandLineUser, gate: str) -> None:
    for end in "ab":
        admin.record(f"{gate}-{end}", gate, *REST)
    assert admin("gates", "wait", gate, gate, *REST, "--timeout", "0").code == 0


def test_timeout_exit_code_is_2_if_missing_1_if_failed(admin: CommandLineUser, gate: str) -> None:
    wait = ("gates", "wait", gate, gate, *REST, "--timeout", "0.2")
    assert admin(*wait).code == 2
    admin.record(f"{gate}-a", gate, *REST, success=False)
    assert admin(*wait).code == 1


def test_fail_fast_ends_when_a_member_fails(admin: CommandLineUser, gate: str) -> None:
    waiting = admin.start("gates", "wait", gate, gate, *REST, "--timeout", "600", "--fail-fast")
    admin.record(f"{gate}-a", gate, *REST)
    admin.record(f"{gate}-b", gate, *REST, success=False)
    assert waiting.wait() == 1
    assert admin("gates", "wait", gate, gate, *REST, "--timeout", "600", "--fail-fast").code == 1


def until_subscribed(hub: ServedHub) -> None:
    """Waits until the hub has a subscriber."""
    end = time.monotonic() + 30
    with httpx2.Client(trust_env=False, timeout=30) as http:
        while not re.search(r"xzepr_subscribers\S* 1\.0", http.get(f"{hub.url}/metrics").text):
            assert time.monotonic() < end, "the hub has no subscriber"
            time.sleep(0.05)


@pytest.mark.slow
def test_wait_survives_a_hub_crash(own_hub: list[ServedHub], anonymous: CommandLineUser) -> None:
    user, hub = anonymous, own_hub[0]
    user.hub = hub.url
    user.log_in("admin", hub.admin_password)
    gate = make_gate(user, "g")
    user.record("g-a", gate, *REST)
    waiting = user.start("gates", "wait", gate, gate, *REST, "--timeout", "120")
    until_subscribed(hub)
    hub.kill()
    waiting.until(lambda waiting: any("trying again" in line for line in waiting.err))
    own_hub.append(ServedHub.start(hub.data_dir, port=hub.port))
    user.log_in("admin", hub.admin_password)
    user.record("g-b", gate, *REST)
    assert waiting.wait() == 0


def test_unreachable_hub_at_the_timeout_exits_3(own_hub: list[ServedHub], anonymous: CommandLineUser) -> None:
    user, hub = anonymous, own_hub[0]
    user.hub = hub.url
    user.log_in("admin", hub.admin_password)
    gate = make_gate(user, "g")
    waiting = user.start("gates", "wait", gate, gate, *REST, "--timeout", "8")
    until_subscribed(hub)
    hub.kill()
    assert (waiting.wait(), waiting.out) == (3, [])


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (("no such group",), {}),
        (("01M7XY3DDWCTA4M1M7NHWDSN8B",), {}),
        (("any", "--hub", "http://127.0.0.1:9"), {"XZEPR_API_KEY": "xzepr_" + "0" * 64}),
        (("any",), {"XZEPR_API_KEY": "xzepr_" + "0" * 64}),
        (("any", "--tiemout", "3"), {}),
    ],
)
def test_unanswerable_wait_exits_3(admin: CommandLineUser, arguments: tuple[str, ...], environ: dict[str, str]) -> None:
    group, *options = arguments
    result = admin("gates", "wait", group, "n", *REST, "--timeout", "5", *options, environ=environ)
    assert (result.code, result.out) == (3, "")
    assert result.err
    assert "Traceback" not in result.err


def test_wait_tells_what_it_waits_for(admin: CommandLineUser, gate: str) -> None:
    waiting = admin.start("gates", "wait", gate, gate, *REST, "--timeout", "1m")
    waiting.until(lambda command: command.err)
    assert waiting.err == [f"xzepr: gate {gate} waits for {gate}-a (missing), {gate}-b (missing); 0 of 2 passed"]
    admin.record(f"{gate}-a", gate, *REST)
    waiting.until(lambda command: len(command.err) > 1)
    assert waiting.err[1:] == [f"xzepr: gate {gate} waits for {gate}-b (missing); 1 of 2 passed"]
    admin.record(f"{gate}-b", gate, *REST)
    assert waiting.wait() == 0
    assert len(waiting.err) == 2


def _no_sleep(_: float) -> None:
    return None


def test_wait_retries_a_hub_that_is_away_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xzepr.cli.client.waiting.time.sleep", _no_sleep)
    answers: list[Exception | None] = [HubUnreachable("away"), HubUnreachable("still away"), None]

    def ask() -> str:
        if (error := answers.pop(0)) is not None:
            raise error
        return "here"

    assert retry_while_away(ask, time.monotonic() + 60) == "here"
    answers[:] = [HubUnreachable("away"), None]
    with pytest.raises(HubUnreachable):
        retry_while_away(ask, time.monotonic())
    assert answers == [None]
