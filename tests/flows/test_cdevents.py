"""The sample events of the CDEvents specification, recorded, read back and received from Kafka unchanged."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.hub import until
from tests.support.relay import consume
from tests.support.requests import InProcessClient, Json, in_process_client, new_event

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "cdevents"
FILES = sorted(SAMPLES.glob("*.json"))
# The samples are published with the specification (https://cdevents.dev) and not copied into this project.
pytestmark = pytest.mark.skipif(not FILES, reason=f"the samples of CDEvents are not in {SAMPLES}")

CREATE_EVENTS = """
mutation ($input: CreateEventsInput!) {
  createEvents(input: $input) { results { recorded { event { id } } problems { field message } } }
}
"""


def schema_of(sample: Json) -> Json:
    """Returns a schema for this type of event: its required context, and a subject of its kind."""
    kind = sample["context"]["type"]
    context = {name: {"type": "string"} for name, value in sample["context"].items() if isinstance(value, str)}
    content = sample["subject"]["content"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind,
        "type": "object",
        "required": ["context", "subject"],
        "properties": {
            "context": {
                "type": "object",
                "required": list(sample["context"]),
                "properties": {
                    **context,
                    "type": {"const": kind},
                    "timestamp": {"type": "string", "format": "date-time"},
                },
            },
            "subject": {
                "type": "object",
                "required": ["id", "content"],
                "properties": {"content": {"type": "object", "required": list(content)}},
            },
        },
    }


async def record_all(ask: InProcessClient) -> dict[str, Json]:
    """Records every sample under a receiver of its type; returns the samples by the ids of their events."""
    samples = [orjson.loads(file.read_bytes()) for file in FILES]
    events: list[Json] = []
    for sample in samples:
        context = sample["context"]
        receiver = await ask.receiver(context["type"], schema=schema_of(sample), description=context["source"])
        fields = {"name": context["type"], "version": context["id"], "occurredAt": context["timestamp"]}
        events.append(new_event(receiver, payload=sample, **fields))
    results = (await ask(CREATE_EVENTS, input={"events": events})).data["createEvents"]["results"]
    assert [result["problems"] for result in results] == [[]] * len(FILES)
    return {result["recorded"]["event"]["id"]: sample for result, sample in zip(results, samples, strict=True)}


def text(value: object) -> str:
    """Returns the value as text, so that equality covers values and the order of keys."""
    return json.dumps(value, ensure_ascii=False)


async def test_samples_are_read_back_unchanged(database_url: str) -> None:
    async with in_process_client(database_url) as ask:
        samples = await record_all(ask)
        assert len(samples) == len(FILES) == 24
        listed = (await ask("{ events(first: 100) { nodes { id payload } } }")).data["events"]["nodes"]
        assert {node["id"]: text(node["payload"]) for node in listed} == {
            id: text(sample) for id, sample in samples.items()
        }


async def test_sample_is_rejected_by_other_receivers(database_url: str) -> None:
    async with in_process_client(database_url) as ask:
        await record_all(ask)
        receivers = (await ask("{ eventReceivers(first: 100) { nodes { id name } } }")).data["eventReceivers"]["nodes"]
        sample = orjson.loads(FILES[0].read_bytes())
        others = [receiver["id"] for receiver in receivers if receiver["name"] != sample["context"]["type"]]
        events = [new_event(id, payload=sample) for id in others]
        results = (await ask(CREATE_EVENTS, input={"events": events})).data["createEvents"]["results"]
        assert len(results) == len(FILES) - 1
        for result in results:
            assert "payload/context/type" in [problem["field"] for problem in result["problems"]]


@pytest.mark.kafka
async def test_samples_arrive_unchanged_in_kafka(database_url: str, kafka: str) -> None:
    name = uuid.uuid4().hex[:12]
    brokers = {"brokers": [kafka], "topic": f"events-{name}", "state_topic": f"relay-{name}", "timeout_seconds": 10}
    async with in_process_client(database_url, {"kafka": brokers}) as ask:
        samples = await record_all(ask)
        count = (await ask.hub.stream.head()).position
        await until(lambda: ask.hub.relay.status.position == count, 60)
        received = await asyncio.to_thread(consume, kafka, f"events-{name}")
    payloads: dict[str, Any] = {}
    for message in received:
        event = orjson.loads(message.value or b"{}")
        if event["type"] == "io.xzepr.event.recorded":
            payloads[event["id"]] = text(event["data"]["event"]["payload"])
    assert payloads == {id: text(sample) for id, sample in samples.items()}
