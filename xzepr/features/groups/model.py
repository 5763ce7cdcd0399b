"""Groups of receivers, units, and the gates of a group for each unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from xzepr.core.frozen import frozen
from xzepr.core.ids import unit_id


@dataclass(frozen=True, slots=True)
class Group:
    """A named set of receivers. An enabled group is a gate for every unit that its receivers report on."""

    id: str
    position: int
    """The position of its `group.created` message. Lists are sorted by it."""
    name: str
    type: str
    version: str
    description: str
    enabled: bool
    owner_id: str
    resource_version: int
    changed_position: int
    """The position of the latest message about the group itself."""
    created_at: datetime
    updated_at: datetime
    receiver_ids: tuple[str, ...]
    """The members, in the order in which they were given."""

    @property
    def size(self) -> int:
        """Size in memory, in bytes, approximately."""
        texts = (self.name, self.type, self.version, self.description)
        return 1024 + 100 * len(self.receiver_ids) + sum(text.__sizeof__() for text in texts)


@dataclass(frozen=True, slots=True)
class NewGroup:
    """A group to be created."""

    name: str
    type: str
    version: str
    description: str
    receiver_ids: tuple[str, ...]
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class GroupChange:
    """Changes to a group. A field that is None stays unchanged."""

    name: str | None = None
    type: str | None = None
    version: str | None = None
    description: str | None = None
    enabled: bool | None = None
    receiver_ids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class GroupFilter:
    """Conditions on the groups of a list. All fields that are not None must be equal."""

    name: str | None = None
    type: str | None = None
    version: str | None = None
    enabled: bool | None = None
    receiver_id: str | None = None
    """Matches groups that have this receiver as a member."""


@frozen
class Unit:
    """The subject of events: one exact version of an artifact."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str

    @property
    def id(self) -> bytes:
        """The digest that identifies the unit in SQL, GraphQL and Kafka; 32 bytes."""
        return unit_id(self.name, self.version, self.release, self.platform_id, self.package)


@frozen
class UnitStatus:
    """The latest event of one receiver for one unit."""

    unit_id: bytes
    receiver_id: str
    position: int
    success: bool
    run_position: int | None
    """The position at which the current run of successes began. None if the latest event is a failure."""
    run_began_at: datetime | None
    """When the current run of successes began. None if the latest event is a failure."""


class MemberState(StrEnum):
    """The state of a member of a gate for the unit."""

    PASSED = "passed"
    FAILED = "failed"
    MISSING = "missing"


@frozen
class GateMember:
    """A member of a gate: a receiver and its state for the unit."""

    receiver_id: str
    state: MemberState
    event_position: int | None
    """The position of the receiver's latest event for the unit. None if there is none."""


@frozen
class Gate:
    """The state of a group for one unit."""

    group: Group
    unit: Unit
    complete: bool
    since: datetime | None
    """The start of the members' current run of successes that began last. None if the gate is incomplete."""
    members: tuple[GateMember, ...]


@frozen
class GateUpdate:
    """The effect of one event on one gate."""

    group: Group
    unit: Unit
    statuses: Mapping[str, UnitStatus]
    """The statuses of the unit after the event, by receiver. The gate is evaluated from them when it is needed."""
    completed: bool
    """Whether `gate.completed` is published."""
    regressed: bool
    """Whether `gate.regressed` is published."""
    transition: bool
    """Whether the event made the gate complete or incomplete, or is the first for the unit since the group changed."""
