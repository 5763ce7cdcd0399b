"""Problems as data, for answers that carry several outcomes: what `errors` says elsewhere, in the same words."""

from typing import cast

import strawberry

from xzepr.api.errors import described
from xzepr.api.graphql.problems import named_as_in_the_schema
from xzepr.core.errors import Problem


@strawberry.type(name="Problem", description="Why something was refused; the codes are those of extensions.code.")
class ProblemFacts:
    """One problem."""

    code: str
    message: str
    field: str | None = strawberry.field(description="The input field, and below it a JSON pointer.")
    retry_after: float | None = strawberry.field(description="Seconds after which the same call may succeed.")


def problem_facts(problem: Problem) -> list[ProblemFacts]:
    """The problem, or each violation of an input."""
    facts: list[ProblemFacts] = []
    for error in described(problem):
        extensions = cast(dict[str, str | float | None], error["extensions"])
        field = cast(str | None, extensions.get("field"))
        facts.append(
            ProblemFacts(
                code=str(extensions["code"]),
                message=str(error["message"]),
                field=None if field is None else named_as_in_the_schema(field),
                retry_after=cast(float | None, extensions.get("retryAfter")),
            )
        )
    return facts
