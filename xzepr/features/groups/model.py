"""Groups, and the gates that they are for each unit."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from xzepr.core.ids import unit_id


@dataclass(frozen=True, slots=True)
class Group:
    """A named set of receivers. Enabled, it is a gate for every unit that its receivers report on."""

    id: str
    position: int
    """Of the message that announced it: the order of lists."""
    name: str
    type: str
    version: str
    description: str
    enabled: bool
    owner_id: str
    resource_version: int
    changed_position: int
    """Of the latest message about the group itself."""
    created_at: datetime
    updated_at: datetime
    receiver_ids: tuple[str, ...]
    """Its members in the order they were given."""


@dataclass(frozen=True, slots=True)
class NewGroup:
    """What it takes to create a group."""

    name: str
    type: str
    version: str
    description: str
    receiver_ids: tuple[str, ...]
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class GroupChange:
    """What is to be changed; None leaves it as it is."""

    name: str | None = None
    type: str | None = None
    version: str | None = None
    description: str | None = None
    enabled: bool | None = None
    receiver_ids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class GroupFilter:
    """Which groups a list shows; every given field must be equal."""

    name: str | None = None
    type: str | None = None
    version: str | None = None
    enabled: bool | None = None
    receiver_id: str | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """What events are about: one exact artifact version."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str

    @property
    def id(self) -> bytes:
        """The digest that names it in SQL, GraphQL and Kafka; 32 bytes."""
        return unit_id(self.name, self.version, self.release, self.platform_id, self.package)


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """One receiver's latest event for one unit."""

    unit_id: bytes
    receiver_id: str
    position: int
    success: bool
    run_position: int | None
    """Where its present run of successes began; None after a failure."""
    run_began_at: datetime | None


class MemberState(StrEnum):
    """What a member of a gate says about the unit."""

    PASSED = "passed"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class GateMember:
    """One receiver's part in a gate."""

    receiver_id: str
    state: MemberState
    event_position: int | None
    """Of its latest event for the unit; None when there is none."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What a group is for one unit."""

    group: Group
    unit: Unit
    complete: bool
    since: datetime | None
    """When the last of its members' present runs of successes began; None while it is not complete."""
    members: tuple[GateMember, ...]


@dataclass(frozen=True, slots=True)
class GateUpdate:
    """What one event did to one gate."""

    gate: Gate
    completed: bool
    """To be announced as gate.completed."""
    regressed: bool
    """To be announced as gate.regressed."""
    transition: bool
    """It was not complete just before, or has not been judged for this unit since the group changed."""
