"""Directives that say in the SDL who may use a field. Services enforce it; a test calls every field without it."""

import strawberry
from strawberry.schema_directive import Location

from xzepr.core.actor import Permission


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION, Location.OBJECT], name="requires", description="Needs this permission."
)
class Requires:
    """Names the permission that a field, or the messages of a type, need."""

    permission: str


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION], name="signedIn", description="Needs credentials, whatever they allow."
)
class SignedIn:
    """Any actor but an anonymous one."""


@strawberry.schema_directive(locations=[Location.FIELD_DEFINITION], name="anyone", description="Needs no credentials.")
class Anyone:
    """Open to the world."""


def requires(permission: Permission) -> list[object]:
    """The `directives` of a field that needs the permission."""
    return [Requires(permission=permission.value)]
