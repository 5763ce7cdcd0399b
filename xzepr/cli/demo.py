"""The command `xzepr demo`: runs a release pipeline against a temporary hub, and prints a live subscription."""

import signal
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from xzepr.cli.accounts.login import request_login
from xzepr.cli.apply_plan import ApplyRun
from xzepr.cli.client.credentials import HubCredential
from xzepr.cli.client.http import HubClient
from xzepr.cli.client.units import UnitKey
from xzepr.cli.client.waiting import GATE_FIELDS
from xzepr.cli.hub_file import DeclaredGroup, DeclaredReceiver, EntityKey, HubFile, MemberReference
from xzepr.cli.output import print_line
from xzepr.cli.throwaway import ThrowawayHub, throwaway_hub
from xzepr.cli.watch import StreamWatch

_UNIT = UnitKey("shop-api", "2.4.0", "1", "linux-x86_64", "oci")
_GATE = "ready for production"
_CREATE = f"""
mutation ($input: CreateEventInput!) {{ createEvent(input: $input) {{ id gates {{ {GATE_FIELDS} }} }} }}
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the pipeline: the JSON Schema properties of its payloads, and the payload that it reports."""

    name: str
    description: str
    properties: Mapping[str, Any]
    payload: Mapping[str, Any]

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the stage's receiver."""
        return {"type": "object", "required": list(self.properties), "properties": self.properties}


_TEXT, _COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
_DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{8,64}$"}
STAGES = (
    Stage(
        "build",
        "The image was built",
        {"commit": _TEXT, "image": _DIGEST},
        {"commit": "9f2c1e7", "image": "sha256:6b1f0c9d"},
    ),
    Stage("tests", "The test suite ran", {"passed": _COUNT, "failed": _COUNT}, {"passed": 1284, "failed": 0}),
    Stage("scan", "Dependencies were scanned", {"critical": _COUNT}, {"critical": 0}),
    Stage(
        "sign",
        "The image was signed",
        {"key": _TEXT, "image": _DIGEST},
        {"key": "release-2026", "image": "sha256:6b1f0c9d"},
    ),
    Stage("staging", "It runs on staging", {"replicas": _COUNT}, {"replicas": 3}),
)


def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print only the stream, one JSON object per line.")] = False,
) -> None:
    """Run a release pipeline against a temporary hub: receivers, a gate, five stages, a failure, a retry. The hub and
    its data are removed at the end. Exit code 0 if the stream delivered exactly the expected messages."""
    signal.signal(signal.SIGTERM, _exit_on_signal)
    started_at = time.monotonic()
    with throwaway_hub() as hub:
        token = request_login(hub.url, hub.username, hub.password).token
        with (
            closing(HubClient(hub.url, HubCredential(token, "log in again"))) as client,
            closing(StreamWatch(client, as_json=as_json)) as watch,
        ):
            _Pipeline(client, watch, as_json=as_json).run(hub)
    if not as_json:
        print_line(
            f"\nDone in {time.monotonic() - started_at:.1f} s. The hub and its data were removed. Start your own with: "
            "xzepr serve"
        )


def _exit_on_signal(number: int, _: object) -> None:
    """Exits by an exception, so that every `with` block is left and the hub is removed."""
    sys.exit(128 + number)


class _Pipeline:
    """Runs the pipeline; each step waits until the subscription has delivered its message."""

    def __init__(self, client: HubClient, watch: StreamWatch, *, as_json: bool) -> None:
        self._client = client
        self._watch = watch
        self._as_json = as_json
        self._receivers: dict[str, str] = {}

    def run(self, hub: ThrowawayHub) -> None:
        self._print(f"A hub with its own PostgreSQL answers at {hub.url} after {hub.start_seconds:.1f} s.", "bold")
        self._print("A subscription follows the whole stream; its messages are marked with ◂.")
        self._create_gate()
        self._heading(f"The pipeline runs for {_UNIT}")
        self._report("build")
        self._report("tests", success=False, payload={"passed": 1281, "failed": 3})
        for stage in ("scan", "sign", "staging"):
            self._report(stage)
        self._heading("The bug is fixed and the tests run again: the last missing success completes the gate")
        self._report("tests", completes=True)
        self._watch.finish()

    def _create_gate(self) -> None:
        self._heading("Each of five stages gets a receiver with a JSON Schema; a group of them is the gate")
        receivers = [
            DeclaredReceiver(_key(stage.name, "stage"), stage.description, stage.schema, True) for stage in STAGES
        ]
        members = tuple(MemberReference(stage.name, "stage", "1", "demo") for stage in STAGES)
        gate = DeclaredGroup(_key(_GATE, "gate"), "May this version go to production?", members, True)
        for change in ApplyRun(self._client, HubFile(tuple(receivers), (gate,)), dry_run=False).changes():
            self._print(f"▸ create {change.noun} {change.key}")
            self._receivers[change.key.name] = change.id or ""
            self._watch.expect(f"{change.noun}.created", change.key.name)

    def _report(
        self, name: str, *, success: bool = True, payload: Mapping[str, Any] | None = None, completes: bool = False
    ) -> None:
        stage = next(stage for stage in STAGES if stage.name == name)
        self._print(f"▸ {name} reports: {'passed' if success else 'FAILED'}", "" if success else "red")
        event = {
            **_UNIT.as_input(),
            "eventReceiverId": self._receivers[name],
            "description": stage.description,
            "payload": payload or stage.payload,
            "success": success,
        }
        gate = self._client.execute(_CREATE, input=event)["createEvent"]["gates"][0]
        self._watch.expect("event.recorded", name)
        if completes:
            self._watch.expect("gate.completed", _GATE)
        states = [str(member["state"]) for member in gate["members"]]
        members = " ".join(f"{item.name}:{state.lower()}" for item, state in zip(STAGES, states, strict=True))
        self._print(
            f"  gate {'COMPLETE' if gate['complete'] else 'incomplete'}: {members}",
            "green" if gate["complete"] else "dim",
        )

    def _heading(self, text: str) -> None:
        self._print(f"\n{text}", "bold")

    def _print(self, text: str, style: str = "") -> None:
        if not self._as_json:
            print_line(text, style)


def _key(name: str, type: str) -> EntityKey:
    return EntityKey(name, type, "1")
