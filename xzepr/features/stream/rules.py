"""Filters of the stream in memory. `page_store.page` filters in SQL, and a property test holds both equal."""

from functools import lru_cache

from xzepr.core.actor import Actor, Permission
from xzepr.core.text import check_queryable
from xzepr.features.stream.kinds import KINDS, Kind
from xzepr.features.stream.model import Event, Message, StreamFilter

_TEXT_FIELDS = ("name", "version", "release", "platform_id", "package")

_ANY_EVENT = (None,) * (len(_TEXT_FIELDS) + 2)  # the conditions of a filter that accepts every event


def matches(filter: StreamFilter, message: Message) -> bool:
    """Returns whether the filter accepts the message."""
    if message.kind not in filter.kinds:
        return False
    if filter.receiver_ids is not None and message.receiver_id not in filter.receiver_ids:
        return False
    if filter.group_ids is not None and message.group_id not in filter.group_ids:
        return False
    return _event_matches(filter, message.event)


def _event_matches(filter: StreamFilter, event: Event | None) -> bool:
    conditions = (
        filter.unit_id,
        filter.name,
        filter.version,
        filter.release,
        filter.platform_id,
        filter.package,
        filter.success,
    )
    if conditions == _ANY_EVENT or event is None:
        return conditions == _ANY_EVENT
    values = (
        event.unit_id,
        event.name,
        event.version,
        event.release,
        event.platform_id,
        event.package,
        event.success,
    )
    return all(condition is None or condition == value for condition, value in zip(conditions, values, strict=True))


def check_filter(filter: StreamFilter) -> None:
    """Checks the texts of a filter. Raises InvalidInput for a text that no message can have."""
    check_queryable({field: getattr(filter, field) for field in _TEXT_FIELDS})
    for field in ("receiver_ids", "group_ids"):
        for id in getattr(filter, field) or ():
            check_queryable({field: id})


def readable(actor: Actor, kinds: frozenset[Kind] | None) -> frozenset[Kind]:
    """Returns those of the requested kinds (None: all) that the actor may read. Others are left out silently."""
    return _readable(actor.permissions, frozenset(Kind) if kinds is None else kinds)


@lru_cache(maxsize=256)  # the filters of thousands of subscribers share one set
def _readable(permissions: frozenset[Permission], kinds: frozenset[Kind]) -> frozenset[Kind]:
    return frozenset(kind for kind in kinds if KINDS[kind].permission in permissions)
