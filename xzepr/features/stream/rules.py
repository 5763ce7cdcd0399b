"""Which messages a filter lets through, in memory; `store.page` decides it in SQL, and a test holds them equal."""

from xzepr.core.actor import Actor
from xzepr.core.text import must_be_askable
from xzepr.features.stream.kinds import KINDS, Kind
from xzepr.features.stream.model import Event, Message, StreamFilter

_TEXTS = ("name", "version", "release", "platform_id", "package")


_NOTHING = (None,) * (len(_TEXTS) + 2)
"""What is asked of an event by who takes any."""


def matches(wanted: StreamFilter, message: Message) -> bool:
    """Whether the filter lets the message through."""
    if message.kind not in wanted.kinds:
        return False
    if wanted.receiver_ids is not None and message.receiver_id not in wanted.receiver_ids:
        return False
    if wanted.group_ids is not None and message.group_id not in wanted.group_ids:
        return False
    return _event_matches(wanted, message.event)


def _event_matches(wanted: StreamFilter, event: Event | None) -> bool:
    asked = (
        wanted.unit_id,
        wanted.name,
        wanted.version,
        wanted.release,
        wanted.platform_id,
        wanted.package,
        wanted.success,
    )
    if asked == _NOTHING or event is None:
        return asked == _NOTHING
    has = (
        event.unit_id,
        event.name,
        event.version,
        event.release,
        event.platform_id,
        event.package,
        event.success,
    )
    return all(want is None or want == value for want, value in zip(asked, has, strict=True))


def check_filter(wanted: StreamFilter) -> None:
    """Raises InvalidInput for a text that no message can have."""
    must_be_askable({field: getattr(wanted, field) for field in _TEXTS})
    for field in ("receiver_ids", "group_ids"):
        for id in getattr(wanted, field) or ():
            must_be_askable({field: id})


def readable(actor: Actor, kinds: frozenset[Kind] | None) -> frozenset[Kind]:
    """The kinds among those asked for (None: all) that the actor may read; the others are skipped silently."""
    asked = frozenset(Kind) if kinds is None else kinds
    return frozenset(kind for kind in asked if actor.may(KINDS[kind].permission))
