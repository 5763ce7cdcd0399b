"""Problems in the schema: their field names as clients know them, and their form as data in batch results."""

from typing import cast

import strawberry

from xzepr.api.errors import error_objects
from xzepr.core.errors import Problem

# The features use short names for receivers and groups; the schema uses these.
_SCHEMA_NAMES = {
    "created_at": "occurred_at",
    "receiver_id": "event_receiver_id",
    "receiver_ids": "event_receiver_ids",
    "group_ids": "event_receiver_group_ids",
}


def schema_field_name(field: str) -> str:
    """Returns the schema's name of a field: `eventReceiverIds/0` for `receiver_ids/0`."""
    name, slash, rest = field.partition("/")
    first, *others = _SCHEMA_NAMES.get(name, name).split("_")
    return first + "".join(word.capitalize() for word in others) + slash + rest


@strawberry.type(name="Problem", description="Why a request was rejected. The codes are those of `extensions.code`.")
class ProblemFacts:
    """A problem as data."""

    code: str
    message: str
    field: str | None = strawberry.field(description="The input field, followed by a JSON pointer into it.")
    retry_after: float | None = strawberry.field(description="Seconds after which the same call may succeed.")


def problem_facts(problem: Problem) -> list[ProblemFacts]:
    """Returns a problem as data: one entry, or one for each violation of an input."""
    facts: list[ProblemFacts] = []
    for error in error_objects(problem):
        extensions = cast(dict[str, str | float | None], error["extensions"])
        field = cast(str | None, extensions.get("field"))
        facts.append(
            ProblemFacts(
                code=str(extensions["code"]),
                message=str(error["message"]),
                field=None if field is None else schema_field_name(field),
                retry_after=cast(float | None, extensions.get("retryAfter")),
            )
        )
    return facts
