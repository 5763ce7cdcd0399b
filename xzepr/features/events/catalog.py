"""The receivers and groups of the catalog as the recorder knows them."""

from collections.abc import Collection
from dataclasses import dataclass

from xzepr.core.lru_cache import LRUCache
from xzepr.features.groups import gates
from xzepr.features.groups.model import Group
from xzepr.features.groups.rules import groups_by_receiver
from xzepr.features.receivers import payload_validation as validation
from xzepr.features.receivers.model import ReceiverState
from xzepr.features.receivers.schemas import Validator
from xzepr.infra.pipeline import Pipeline

STATEMENTS = (*validation.STATEMENTS, *gates.STATEMENTS)

_MAX_RECEIVERS = 10_000
_MAX_MEMBERSHIPS = 100_000  # of receivers in groups, over all receivers
_MAX_VALIDATORS = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a receiver, and its enabled groups, sorted by their creation. The state is None if it is unknown."""

    state: ReceiverState | None
    groups: tuple[Group, ...]


class KnownCatalog:
    """Keeps standings for as long as the catalog's token is the same, because they cannot have changed then.

    Every method is called by one task, in a transaction that holds the writer lock.
    """

    def __init__(self) -> None:
        self._token: str | None = None
        self._standings = LRUCache[str, Standing](
            _MAX_RECEIVERS, max_size=_MAX_MEMBERSHIPS, size_of=lambda standing: len(standing.groups)
        )
        self._validators = LRUCache[str, Validator](_MAX_VALIDATORS)

    async def standings(self, pipeline: Pipeline, token: str, receiver_ids: Collection[str]) -> dict[str, Standing]:
        """Returns the standings of receivers under the current token. Reads those that are not kept."""
        if token != self._token:
            self._token = token
            self._standings.clear()
            self._validators.clear()
        standings = {id: standing for id in receiver_ids if (standing := self._standings.get(id)) is not None}
        if missing := [id for id in receiver_ids if id not in standings]:
            standings |= await self._read(pipeline, missing)
        return standings

    async def revision(self, pipeline: Pipeline, receiver_id: str, state: ReceiverState | None, payload: object) -> int:
        """Returns the revision of the receiver's current schema, which accepts the payload.

        Raises NotFound, Conflict if the receiver is disabled, or InvalidInput if the schema rejects the payload.
        """
        if state is None:
            raise validation.not_found(receiver_id)
        validation.check_enabled(receiver_id, enabled=state.enabled)
        if (validator := self._validators.get(receiver_id)) is None:
            validator = await validation.read_validator(pipeline, receiver_id)
            self._validators.put(receiver_id, validator)
        validation.check_payload(validator, payload)
        return state.revision

    async def _read(self, pipeline: Pipeline, receiver_ids: Collection[str]) -> dict[str, Standing]:
        states_reply = validation.send_states(pipeline, receiver_ids)
        groups_reply = gates.send_groups(pipeline, receiver_ids)
        await pipeline.flush()
        await pipeline.receive()
        states = {state.id: state for state in states_reply.rows}
        groups = groups_by_receiver(groups_reply.rows)
        standings = {id: Standing(states.get(id), tuple(groups.get(id, ()))) for id in receiver_ids}
        for id, standing in standings.items():
            self._standings.put(id, standing)
        return standings
