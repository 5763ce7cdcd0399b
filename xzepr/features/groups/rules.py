"""What makes a gate complete, and what an event does to it: pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from xzepr.core.errors import InvalidInput, Violation
from xzepr.core.text import MAX_ID_CHARS, check_queryable, check_text
from xzepr.features.groups.model import Gate, GateMember, GateUpdate, Group, GroupFilter, MemberState, Unit, UnitStatus
from xzepr.features.stream.model import Event
from xzepr.settings import EventSettings


def evaluate_gate(group: Group, unit: Unit, statuses: Mapping[str, UnitStatus]) -> Gate:
    """The gate that a group is for a unit, from its receivers' latest events, keyed by receiver: complete when every
    member's latest event for exactly this unit is a success."""
    members: list[GateMember] = []
    complete, since = True, None
    for receiver_id in group.receiver_ids:
        status = statuses.get(receiver_id)
        members.append(_member(receiver_id, status))
        if status is None or not status.success:
            complete = False
        elif status.run_began_at is not None and (since is None or status.run_began_at > since):
            since = status.run_began_at
    return Gate(group, unit, complete, since if complete else None, tuple(members))


def unit_of(event: Event) -> Unit:
    """What the event is about."""
    return Unit(event.name, event.version, event.release, event.platform_id, event.package)


def _member(receiver_id: str, status: UnitStatus | None) -> GateMember:
    if status is None:
        return GateMember(receiver_id, MemberState.MISSING, None)
    return GateMember(receiver_id, MemberState.PASSED if status.success else MemberState.FAILED, status.position)


def statuses_by_unit(statuses: Iterable[UnitStatus]) -> dict[bytes, dict[str, UnitStatus]]:
    """Statuses by their unit, then by their receiver."""
    units: dict[bytes, dict[str, UnitStatus]] = {}
    for status in statuses:
        units.setdefault(status.unit_id, {})[status.receiver_id] = status
    return units


class GateFold:
    """Folds the events of a batch, in order, into the gates of their receivers' enabled groups."""

    def __init__(self, groups: Iterable[Group], statuses: Iterable[UnitStatus]) -> None:
        """`groups`: every enabled group that any of the batch's receivers is in. `statuses`: of all its units."""
        self._groups: dict[str, list[Group]] = {}
        for group in sorted(groups, key=lambda group: group.position):
            for receiver_id in group.receiver_ids:
                self._groups.setdefault(receiver_id, []).append(group)
        self._units = statuses_by_unit(statuses)
        self._changed: dict[tuple[bytes, str], UnitStatus] = {}

    def record(self, event: Event) -> list[GateUpdate]:
        """What the event does to each gate of its receiver, in the order the groups were created."""
        statuses = self._units.setdefault(event.unit_id, {})
        groups = self._groups.get(event.receiver_id, ())
        unit = unit_of(event)
        before = [_status_before(group, statuses) for group in groups]
        latest = _next_status(statuses.get(event.receiver_id), event)
        statuses[event.receiver_id] = latest
        self._changed[event.unit_id, event.receiver_id] = latest
        after = [evaluate_gate(group, unit, statuses) for group in groups]
        return [_update(*was, gate, event) for was, gate in zip(before, after, strict=True)]

    def changed(self) -> Sequence[UnitStatus]:
        """The final state of every (unit, receiver) that the batch reported on."""
        return list(self._changed.values())


def _next_status(before: UnitStatus | None, event: Event) -> UnitStatus:
    if not event.success:
        run_position, run_began_at = None, None
    elif before is not None and before.success:
        run_position, run_began_at = before.run_position, before.run_began_at
    else:
        run_position, run_began_at = event.position, event.recorded_at
    return UnitStatus(event.unit_id, event.receiver_id, event.position, event.success, run_position, run_began_at)


def _status_before(group: Group, statuses: Mapping[str, UnitStatus]) -> tuple[bool, int]:
    """Whether the gate is complete, and the position of the last event that it was judged by."""
    complete, judged_at = True, 0
    for receiver_id in group.receiver_ids:
        status = statuses.get(receiver_id)
        if status is None:
            complete = False
        else:
            complete = complete and status.success
            judged_at = max(judged_at, status.position)
    return complete, judged_at


def _update(was_complete: bool, judged_at: int, after: Gate, event: Event) -> GateUpdate:
    fresh = judged_at <= after.group.changed_position
    return GateUpdate(
        gate=after,
        completed=event.success and after.complete,
        regressed=was_complete and not after.complete,
        transition=fresh or was_complete != after.complete,
    )


def check(
    texts: Mapping[str, str | None], receiver_ids: tuple[str, ...] | None, *, limits: EventSettings, max_members: int
) -> None:
    """Raises InvalidInput with all that is wrong with the given fields of a group; None means not given."""
    violations: list[Violation] = []
    for field, value in texts.items():
        if value is not None:
            longest = limits.max_description_chars if field == "description" else limits.max_name_chars
            violations += check_text(field, value, max_chars=longest)
    if receiver_ids is not None:
        violations += _check_members(receiver_ids, max_members)
    if violations:
        raise InvalidInput(violations)


def check_filter(wanted: GroupFilter) -> None:
    """Raises InvalidInput for a text that no group can have."""
    check_queryable({field: getattr(wanted, field) for field in ("name", "type", "version", "receiver_id")})


def _check_members(receiver_ids: tuple[str, ...], max_members: int) -> Iterator[Violation]:
    if not receiver_ids:
        yield Violation("receiver_ids", "need at least one event receiver id")
    if len(receiver_ids) > max_members:
        yield Violation("receiver_ids", f"a group has at most {max_members} members")
        return
    for index, receiver_id in enumerate(receiver_ids):
        if not receiver_id.strip():
            yield Violation(f"receiver_ids/{index}", "event receiver ids cannot be blank")
        elif receiver_id in receiver_ids[:index]:
            yield Violation(f"receiver_ids/{index}", f"{receiver_id} is named twice")
        else:
            yield from check_text(f"receiver_ids/{index}", receiver_id, max_chars=MAX_ID_CHARS)


def snapshot(group: Group) -> bytes:
    """The group as the stream tells it: compact JSON, its keys as in GraphQL."""
    return orjson.dumps(
        {
            "id": group.id,
            "name": group.name,
            "type": group.type,
            "version": group.version,
            "description": group.description,
            "enabled": group.enabled,
            "eventReceiverIds": group.receiver_ids,
            "ownerId": group.owner_id,
            "resourceVersion": group.resource_version,
            "position": group.position,
            "changedPosition": group.changed_position,
            "createdAt": group.created_at,
            "updatedAt": group.updated_at,
        },
        option=orjson.OPT_UTC_Z,
    )


def from_snapshot(said: Mapping[str, Any]) -> Group:
    """The group that `snapshot` wrote, once it is read as JSON."""
    return Group(
        id=said["id"],
        position=said["position"],
        name=said["name"],
        type=said["type"],
        version=said["version"],
        description=said["description"],
        enabled=said["enabled"],
        owner_id=said["ownerId"],
        resource_version=said["resourceVersion"],
        changed_position=said["changedPosition"],
        created_at=datetime.fromisoformat(said["createdAt"]),
        updated_at=datetime.fromisoformat(said["updatedAt"]),
        receiver_ids=tuple(said["eventReceiverIds"]),
    )
