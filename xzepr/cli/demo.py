"""`xzepr demo`: a release pipeline against a throw-away hub, with a live subscription printing beside it."""

import signal
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from xzepr.cli.apply_plan import Apply
from xzepr.cli.client.credentials import Credential
from xzepr.cli.client.http import Client
from xzepr.cli.client.units import Unit
from xzepr.cli.client.waiting import GATE_FIELDS
from xzepr.cli.hub_file import HubFile, Key, Member, WantedGroup, WantedReceiver
from xzepr.cli.login import sign_in
from xzepr.cli.output import print_line
from xzepr.cli.throwaway import ThrowAwayHub, throw_away_hub
from xzepr.cli.watch import Watch

_UNIT = Unit("shop-api", "2.4.0", "1", "linux-x86_64", "oci")
_GATE = "ready for production"
_CREATE = f"""
mutation ($input: CreateEventInput!) {{ createEvent(input: $input) {{ event {{ id }} gates {{ {GATE_FIELDS} }} }} }}
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the pipeline: what its payloads look like, and what it reports."""

    name: str
    description: str
    properties: Mapping[str, Any]
    payload: Mapping[str, Any]

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its receiver."""
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
    as_json: Annotated[bool, typer.Option("--json", help="Print only the stream, one JSON object a line.")] = False,
) -> None:
    """Play a release pipeline against a throw-away hub: receivers, a gate, five stages, a failure, a retry. Nothing of
    it stays. Exit code 0 when the stream told exactly what happened."""
    signal.signal(signal.SIGTERM, _end)
    began = time.monotonic()
    with throw_away_hub() as hub:
        token = sign_in(hub.url, hub.username, hub.password).token
        with (
            closing(Client(hub.url, Credential(token, "log in again"))) as client,
            closing(Watch(client, as_json=as_json)) as watch,
        ):
            _Play(client, watch, quiet=as_json).run(hub)
    if not as_json:
        print_line(
            f"\nDone in {time.monotonic() - began:.1f} s; the hub and its data are gone. Yours starts with: xzepr serve"
        )


def _end(number: int, _: object) -> None:
    """Ends as Ctrl-C does: through every `with`, so that the hub goes too."""
    sys.exit(128 + number)


class _Play:
    """The pipeline, step by step; every step waits until the subscription has told it."""

    def __init__(self, client: Client, watch: Watch, *, quiet: bool) -> None:
        self._client = client
        self._watch = watch
        self._quiet = quiet
        self._receivers: dict[str, str] = {}

    def run(self, hub: ThrowAwayHub) -> None:
        self._say(f"A hub with its own PostgreSQL answers at {hub.url} after {hub.start_seconds:.1f} s.", "bold")
        self._say("A subscription listens to everything; what it hears stands behind ◂.")
        self._declare()
        self._heading(f"The pipeline runs for {_UNIT}")
        self._report("build")
        self._report("tests", success=False, payload={"passed": 1281, "failed": 3})
        for stage in ("scan", "sign", "staging"):
            self._report(stage)
        self._heading("The tests are mended and run again: the gate completes with the last missing success")
        self._report("tests", completes=True)
        self._watch.finish()

    def _declare(self) -> None:
        self._heading("Five stages get a receiver each, with a JSON Schema, and a group makes them a gate")
        receivers = [WantedReceiver(_key(one.name, "stage"), one.description, one.schema, True) for one in STAGES]
        members = tuple(Member(one.name, "stage", "1", "demo") for one in STAGES)
        gate = WantedGroup(_key(_GATE, "gate"), "May this version go to production?", members, True)
        for change in Apply(self._client, HubFile(tuple(receivers), (gate,)), dry_run=False).changes():
            self._say(f"▸ create {change.noun} {change.key}")
            self._receivers[change.key.name] = change.id or ""
            self._watch.expect(f"{change.noun}.created", change.key.name)

    def _report(
        self, name: str, *, success: bool = True, payload: Mapping[str, Any] | None = None, completes: bool = False
    ) -> None:
        stage = next(stage for stage in STAGES if stage.name == name)
        self._say(f"▸ {name} reports: {'passed' if success else 'FAILED'}", "" if success else "red")
        event = {
            **_UNIT.as_input(),
            "eventReceiverId": self._receivers[name],
            "description": stage.description,
            "payload": payload or stage.payload,
            "success": success,
        }
        gate = self._client.ask(_CREATE, input=event)["createEvent"]["gates"][0]
        self._watch.expect("event.recorded", name)
        if completes:
            self._watch.expect("gate.completed", _GATE)
        states = [str(member["state"]) for member in gate["members"]]
        told = " ".join(f"{one.name}:{state.lower()}" for one, state in zip(STAGES, states, strict=True))
        self._say(
            f"  gate {'COMPLETE' if gate['complete'] else 'open'}: {told}", "green" if gate["complete"] else "dim"
        )

    def _heading(self, text: str) -> None:
        self._say(f"\n{text}", "bold")

    def _say(self, text: str, style: str = "") -> None:
        if not self._quiet:
            print_line(text, style)


def _key(name: str, type: str) -> Key:
    return Key(name, type, "1")
