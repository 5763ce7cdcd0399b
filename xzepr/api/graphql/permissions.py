"""Schema directives that document the permission of each field, and guards for fields that call no service.

Services enforce the permissions of their calls. `guard` enforces that of a field whose value is already loaded. A test
walks every field without its permission.
"""

from functools import cache
from typing import Any

import strawberry
from strawberry.schema_directive import Location

from xzepr.api.graphql_server.plans.resolvers import GUARD, Guard
from xzepr.core.actor import Permission


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION, Location.OBJECT], name="requires", description="Requires this permission."
)
class Requires:
    """The permission that a field, or every message of a type, requires."""

    permission: str


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="signedIn",
    description="Requires valid credentials, but no particular permission.",
)
class SignedIn:
    """Marks a field that is available to every authenticated actor."""


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION], name="anyone", description="Requires no credentials."
)
class Anyone:
    """Marks a field that is available without credentials."""


def requires(permission: Permission) -> list[object]:
    """Returns the `directives` of a field that requires a permission."""
    return [Requires(permission=permission.value)]


def guard(permission: Permission) -> dict[object, object]:
    """Returns the `metadata` of a field that is read, and that requires a permission."""
    return {GUARD: _check(permission)}


@cache
def _check(permission: Permission) -> Guard:
    def check(context: Any) -> None:
        context.actor.must(permission)

    return check
