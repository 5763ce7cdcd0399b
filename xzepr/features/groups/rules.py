"""Rules for gates and groups, without I/O: evaluation, the effect of events, limits on fields, and snapshots."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from xzepr.core.clock import json_time
from xzepr.core.errors import InvalidInput, Violation
from xzepr.core.text import MAX_ID_CHARS, check_queryable, check_text
from xzepr.features.groups.model import Gate, GateMember, GateUpdate, Group, GroupFilter, MemberState, Unit, UnitStatus
from xzepr.features.stream.model import Event
from xzepr.settings import EventSettings


def evaluate_gate(group: Group, unit: Unit, statuses: Mapping[str, UnitStatus]) -> Gate:
    """Returns the gate of a group for a unit, from the unit's statuses by receiver.

    The gate is complete if every member's latest event for the unit is a success.
    """
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


def gate_of(update: GateUpdate) -> Gate:
    """Returns the gate as the event has left it."""
    return evaluate_gate(update.group, update.unit, update.statuses)


def unit_of(event: Event) -> Unit:
    """Returns the unit that the event reports on."""
    return Unit(event.name, event.version, event.release, event.platform_id, event.package)


def _member(receiver_id: str, status: UnitStatus | None) -> GateMember:
    if status is None:
        return GateMember(receiver_id, MemberState.MISSING, None)
    return GateMember(receiver_id, MemberState.PASSED if status.success else MemberState.FAILED, status.position)


def statuses_by_unit(statuses: Iterable[UnitStatus]) -> dict[bytes, dict[str, UnitStatus]]:
    """Returns the statuses by unit id, then by receiver id."""
    by_unit: dict[bytes, dict[str, UnitStatus]] = {}
    for status in statuses:
        by_unit.setdefault(status.unit_id, {})[status.receiver_id] = status
    return by_unit


def groups_by_receiver(groups: Iterable[Group]) -> dict[str, list[Group]]:
    """Returns the groups of each receiver, sorted by their creation."""
    by_receiver: dict[str, list[Group]] = {}
    for group in sorted(groups, key=lambda group: group.position):
        for receiver_id in group.receiver_ids:
            by_receiver.setdefault(receiver_id, []).append(group)
    return by_receiver


class GateFold:
    """A fold over the events of a batch, in order: it keeps the statuses of their units."""

    def __init__(self, statuses: Iterable[UnitStatus]) -> None:
        """`statuses` are all statuses of the batch's units."""
        self._statuses = statuses_by_unit(statuses)
        self._changed: dict[tuple[bytes, str], UnitStatus] = {}

    def record(self, event: Event, groups: Sequence[Group]) -> list[GateUpdate]:
        """Applies an event and returns its effect on each gate of its receiver.

        `groups` are the enabled groups of the receiver, sorted by their creation, and so is the result.
        """
        unit_id, receiver_id = event.unit_id, event.receiver_id
        statuses = self._statuses.get(unit_id)
        if statuses is None:
            statuses = self._statuses[unit_id] = {}
        before = statuses.get(receiver_id)
        statuses[receiver_id] = self._changed[unit_id, receiver_id] = _next_status(before, event)
        if not groups:
            return []
        unit, after = unit_of(event), statuses.copy()
        return [_update(group, unit, after, before, event) for group in groups]

    def changed(self) -> Sequence[UnitStatus]:
        """Returns the final status of every unit and receiver that the batch reported on."""
        return list(self._changed.values())


def _next_status(before: UnitStatus | None, event: Event) -> UnitStatus:
    if not event.success:
        run_position, run_began_at = None, None
    elif before is not None and before.success:
        run_position, run_began_at = before.run_position, before.run_began_at
    else:
        run_position, run_began_at = event.position, event.recorded_at
    return UnitStatus(event.unit_id, event.receiver_id, event.position, event.success, run_position, run_began_at)


def _update(
    group: Group, unit: Unit, statuses: Mapping[str, UnitStatus], before: UnitStatus | None, event: Event
) -> GateUpdate:
    """Returns the effect of an event on the gate of one of its receiver's groups.

    `statuses` are those after the event; `before` is the receiver's status before it.
    """
    others_passed, latest_position = True, 0 if before is None else before.position
    for receiver_id in group.receiver_ids:
        if receiver_id != event.receiver_id:
            status = statuses.get(receiver_id)
            if status is None:
                others_passed = False
            else:
                others_passed = others_passed and status.success
                latest_position = max(latest_position, status.position)
    was_complete = others_passed and before is not None and before.success
    is_complete = others_passed and event.success
    return GateUpdate(
        group,
        unit,
        statuses,
        event.success and is_complete,
        was_complete and not is_complete,
        latest_position <= group.changed_position or was_complete != is_complete,
    )


def check(
    texts: Mapping[str, str | None], receiver_ids: tuple[str, ...] | None, *, limits: EventSettings, max_members: int
) -> None:
    """Checks the fields of a group; those that are None are not checked. Raises InvalidInput with all violations."""
    violations: list[Violation] = []
    for field, value in texts.items():
        if value is not None:
            max_chars = limits.max_description_chars if field == "description" else limits.max_name_chars
            violations += check_text(field, value, max_chars=max_chars)
    if receiver_ids is not None:
        violations += _check_members(receiver_ids, max_members)
    if violations:
        raise InvalidInput(violations)


def check_filter(filter: GroupFilter) -> None:
    """Raises InvalidInput if the filter has a text that no group can have."""
    check_queryable({field: getattr(filter, field) for field in ("name", "type", "version", "receiver_id")})


def _check_members(receiver_ids: tuple[str, ...], max_members: int) -> Iterator[Violation]:
    if not receiver_ids:
        yield Violation("receiver_ids", "a group needs at least one event receiver id")
    if len(receiver_ids) > max_members:
        yield Violation("receiver_ids", f"a group has at most {max_members} members")
        return
    for index, receiver_id in enumerate(receiver_ids):
        if not receiver_id.strip():
            yield Violation(f"receiver_ids/{index}", "an event receiver id must not be blank")
        elif receiver_id in receiver_ids[:index]:
            yield Violation(f"receiver_ids/{index}", f"{receiver_id} is listed twice")
        else:
            yield from check_text(f"receiver_ids/{index}", receiver_id, max_chars=MAX_ID_CHARS)


def snapshot(group: Group) -> bytes:
    """Returns the group as the stream carries it: compact JSON with the keys of GraphQL."""
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
            "createdAt": json_time(group.created_at),
            "updatedAt": json_time(group.updated_at),
        },
        option=orjson.OPT_UTC_Z,
    )


def from_snapshot(data: Mapping[str, Any]) -> Group:
    """Returns the group from the JSON object that `snapshot` wrote."""
    return Group(
        id=data["id"],
        position=data["position"],
        name=data["name"],
        type=data["type"],
        version=data["version"],
        description=data["description"],
        enabled=data["enabled"],
        owner_id=data["ownerId"],
        resource_version=data["resourceVersion"],
        changed_position=data["changedPosition"],
        created_at=datetime.fromisoformat(data["createdAt"]),
        updated_at=datetime.fromisoformat(data["updatedAt"]),
        receiver_ids=tuple(data["eventReceiverIds"]),
    )
