"""The limits of texts apply to events, receivers and groups alike."""

from collections.abc import Awaitable

import pytest

from tests.support.hub import MANAGER, new_event, running_hub
from xzepr.core.errors import InvalidInput
from xzepr.features.groups.model import GroupChange, NewGroup
from xzepr.features.receivers.model import NewReceiver, ReceiverChange

NAME, DESCRIPTION = "n" * 7, "d" * 11
LONG = (NAME + "n", NAME + "n", NAME + "n", DESCRIPTION + "d")
TEXTS = {"name", "type", "version", "description"}
EVENT_NAMES = ("name", "version", "release", "platform_id", "package")


async def too_long(call: Awaitable[object]) -> set[str]:
    """Returns the fields that a call rejects because of their length."""
    with pytest.raises(InvalidInput) as error:
        await call
    assert all("characters; at most" in violation.message for violation in error.value.violations)
    return {violation.field for violation in error.value.violations}


async def test_text_limits_apply_to_all_features(database_url: str) -> None:
    limits = {"max_name_chars": len(NAME), "max_description_chars": len(DESCRIPTION)}
    async with running_hub(database_url, events=limits) as hub:
        receiver = await hub.receivers.create(MANAGER, NewReceiver(NAME, NAME, NAME, DESCRIPTION, True))
        assert await too_long(hub.receivers.create(MANAGER, NewReceiver(*LONG, True))) == TEXTS
        assert await too_long(hub.receivers.update(MANAGER, receiver.id, ReceiverChange(*LONG))) == TEXTS

        group = await hub.groups.create(MANAGER, NewGroup(NAME, NAME, NAME, DESCRIPTION, (receiver.id,)))
        assert await too_long(hub.groups.create(MANAGER, NewGroup(*LONG, (receiver.id,)))) == TEXTS
        assert await too_long(hub.groups.update(MANAGER, group.id, GroupChange(*LONG))) == TEXTS

        fitting, long = dict.fromkeys(EVENT_NAMES, NAME), dict.fromkeys(EVENT_NAMES, NAME + "n")
        await hub.recorder.record(MANAGER, new_event(receiver, description=DESCRIPTION, **fitting))
        event = new_event(receiver, description=DESCRIPTION + "d", **long)
        assert await too_long(hub.recorder.record(MANAGER, event)) == {*EVENT_NAMES, "description"}
