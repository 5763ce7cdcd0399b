"""The fields of the schema with a guard, and an operation for each field that needs a permission."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphql import FieldDefinitionNode, ObjectTypeDefinitionNode, StringValueNode, parse

from xzepr.api.graphql.schema import sdl

GUARDS = ("requires", "signedIn", "anyone")


@dataclass(frozen=True, slots=True)
class GuardedField:
    """A field that needs a permission, needs credentials, or is open to anyone."""

    type: str
    field: str
    guard: str
    permission: str | None

    @property
    def path(self) -> str:
        """The type and the field, such as `Query.event`."""
        return f"{self.type}.{self.field}"


def guards_of(node: FieldDefinitionNode | ObjectTypeDefinitionNode) -> list[tuple[str, str | None]]:
    """Returns the guards of a field or a type, each with its permission, or None if it names none."""
    guards: list[tuple[str, str | None]] = []
    for directive in node.directives or ():
        if directive.name.value in GUARDS:
            values = [argument.value for argument in directive.arguments or ()]
            permissions = [value.value for value in values if isinstance(value, StringValueNode)]
            guards.append((directive.name.value, permissions[0] if permissions else None))
    return guards


def guarded_fields() -> Iterator[GuardedField]:
    """Yields every field of the schema that has a guard."""
    for definition in parse(sdl()).definitions:
        if isinstance(definition, ObjectTypeDefinitionNode):
            for field in definition.fields or ():
                for guard, permission in guards_of(field):
                    yield GuardedField(definition.name.value, field.name.value, guard, permission)


_UNIT = '{name: "app", version: "1.0.0", release: "1", platformId: "linux", package: "rpm"}'
_NEW = (
    'name: "app", version: "1.0.0", release: "1", platformId: "linux", package: "rpm", description: "d",'
    "payload: {}, success: true, eventReceiverId: BUILD"
)
_NAMED = 'name: "new", type: "t", version: "1", description: "d"'

# A document for each field that needs a permission, including the fields above it. The placeholders are EVENT, BUILD
# (a receiver), SPARE (a receiver without events), GROUP, OTHER (a user) and UNIT.
CALLS: dict[str, str] = {
    "Query.event": "{ event(id: EVENT) { id } }",
    "Query.events": "{ events { nodes { id } } }",
    "Query.unit": "{ unit(unit: UNIT) { id } }",
    "Query.eventReceiver": "{ eventReceiver(id: BUILD) { id } }",
    "Query.eventReceivers": "{ eventReceivers { nodes { id } } }",
    "Query.eventReceiverGroup": "{ eventReceiverGroup(id: GROUP) { id } }",
    "Query.eventReceiverGroups": "{ eventReceiverGroups { nodes { id } } }",
    "Query.gate": "{ gate(eventReceiverGroupId: GROUP, unit: UNIT) { complete } }",
    "Query.users": "{ users { id } }",
    "Query.streamStatus": "{ streamStatus { cursor } }",
    "Event.eventReceiver": "{ event(id: EVENT) { eventReceiver { id } } }",
    "Unit.events": "{ unit(unit: UNIT) { events { nodes { id } } } }",
    "Unit.gates": "{ unit(unit: UNIT) { gates { complete } } }",
    "EventReceiver.eventReceiverGroups": "{ eventReceiver(id: BUILD) { eventReceiverGroups { id } } }",
    "EventReceiver.events": "{ eventReceiver(id: BUILD) { events { nodes { id } } } }",
    "EventReceiverGroup.eventReceivers": "{ eventReceiverGroup(id: GROUP) { eventReceivers { id } } }",
    "GateMember.eventReceiver": "{ gate(eventReceiverGroupId: GROUP, unit: UNIT) "
    "{ members { eventReceiver { id } } } }",
    "GateMember.event": "{ gate(eventReceiverGroupId: GROUP, unit: UNIT) { members { event { id } } } }",
    "Mutation.createEvent": f"mutation {{ createEvent(input: {{{_NEW}}}) {{ cursor }} }}",
    "Mutation.createEvents": f"mutation {{ createEvents(input: {{events: [{{{_NEW}}}]}}) {{ results {{ problems "
    "{ code } } } }",
    "Mutation.createEventReceiver": f"mutation {{ createEventReceiver(input: {{{_NAMED}, schema: {{}}}}) {{ id }} }}",
    "Mutation.updateEventReceiver": 'mutation { updateEventReceiver(input: {id: BUILD, name: "x"}) { id } }',
    "Mutation.deleteEventReceiver": "mutation { deleteEventReceiver(input: {id: SPARE}) { id } }",
    "Mutation.createEventReceiverGroup": f"mutation {{ createEventReceiverGroup(input: {{{_NAMED}, "
    "eventReceiverIds: [BUILD]}) { id } }",
    "Mutation.updateEventReceiverGroup": 'mutation { updateEventReceiverGroup(input: {id: GROUP, name: "x"}) { id } }',
    "Mutation.setEventReceiverGroupEnabled": "mutation { setEventReceiverGroupEnabled(input: {id: GROUP, "
    "enabled: false}) { id } }",
    "Mutation.deleteEventReceiverGroup": "mutation { deleteEventReceiverGroup(input: {id: GROUP}) { id } }",
    "Mutation.createUser": 'mutation { createUser(input: {username: "bob", password: "long enough, sure", '
    "roles: [USER]}) { user { id } } }",
    "Mutation.setUserEnabled": "mutation { setUserEnabled(input: {id: OTHER, enabled: false}) { user { id } } }",
    "Mutation.resumeRelay": 'mutation { resumeRelay(input: {route: "xzepr.events", at: 0}) { after } }',
    "Query.deadLetters": '{ deadLetters(route: "xzepr.events") { nodes { position } } }',
    "Mutation.retryDeadLetters": 'mutation { retryDeadLetters(input: {route: "xzepr.events", all: true}) { count } }',
    "Mutation.dropDeadLetters": 'mutation { dropDeadLetters(input: {route: "xzepr.events", all: true}) { count } }',
    "CreateEventPayload.event": f"mutation {{ createEvent(input: {{{_NEW}}}) {{ event {{ id }} }} }}",
    "CreateEventReceiverPayload.eventReceiver": f"mutation {{ createEventReceiver(input: {{{_NAMED}, schema: {{}}}}) "
    "{ eventReceiver { id } } }",
    "UpdateEventReceiverPayload.eventReceiver": 'mutation { updateEventReceiver(input: {id: BUILD, name: "x"}) '
    "{ eventReceiver { id } } }",
    "CreateEventReceiverGroupPayload.eventReceiverGroup": f"mutation {{ createEventReceiverGroup(input: {{{_NAMED}, "
    "eventReceiverIds: [BUILD]}) { eventReceiverGroup { id } } }",
    "UpdateEventReceiverGroupPayload.eventReceiverGroup": "mutation { updateEventReceiverGroup(input: {id: GROUP, "
    'name: "x"}) { eventReceiverGroup { id } } }',
    "SetEventReceiverGroupEnabledPayload.eventReceiverGroup": "mutation { setEventReceiverGroupEnabled(input: "
    "{id: GROUP, enabled: false}) { eventReceiverGroup { id } } }",
    "Gate.unit": "{ gate(eventReceiverGroupId: GROUP, unit: UNIT) { unit { id } } }",
    "CreateEventPayload.gates": f"mutation {{ createEvent(input: {{{_NEW}}}) {{ cursor gates {{ complete }} }} }}",
}


def call_of(path: str, ids: Mapping[str, str]) -> str:
    """Returns the document for the field at this path, with its placeholders replaced by the ids."""
    document = CALLS[path].replace("UNIT", _UNIT)
    for name, id in ids.items():
        document = document.replace(name, f'"{id}"')
    return document


# Guarded edges that test_edges.py walks: those of messages and of deleted objects, with the messages that hold them.
WALKED_TYPES = ("Created", "Updated", "Deleted", "Completed", "Regressed")


def is_walked(field: GuardedField) -> bool:
    """Returns whether test_edges.py calls the field, because a single document cannot."""
    return field.type.endswith(WALKED_TYPES) or (field.type.startswith("Delete") and field.type.endswith("Payload"))
