"""Schema directives that document the permission of each field.

Services enforce the permissions; a test calls every field without its permission.
"""

import strawberry
from strawberry.schema_directive import Location

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
