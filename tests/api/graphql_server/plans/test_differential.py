"""Plans return the data and errors that graphql-core returns for a schema as Strawberry builds it.

Documents and data are drawn as bytes, each of which decides on one choice: that is ten times faster than a strategy for
each of them, and leaves more time for the executions.
"""

import asyncio

import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from tests.api.graphql_server.plans.comparison import Comparison, Tally, rendered_objects
from tests.api.graphql_server.plans.drawn_documents import Choices, DrawnDocuments
from tests.api.graphql_server.plans.toy_operations import FAST

# graphql-core cancels the siblings of a field that failed, and some of their coroutines have not begun then.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")

DOCUMENT = st.binary(min_size=200, max_size=200)
DATA = st.binary(min_size=192, max_size=192)
VALIDATED = 4  # one in so few documents is validated


def compare(operation: str, cases: int) -> None:
    """Compares executions of drawn documents, and asserts that most of them needed no fallback, but some did."""
    tally, rendered = Tally(), rendered_objects()

    @settings(max_examples=cases, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink))
    @given(choices=DOCUMENT, data=DATA, other_data=DATA)
    def compare_one(choices: bytes, data: bytes, other_data: bytes) -> None:
        drawn = DrawnDocuments(FAST, Choices(choices))
        text = drawn.document(operation)
        values, other_values = drawn.values(), drawn.values()
        note(f"{text}\n{values}\n{other_values}")
        comparison = Comparison(text, tally, rendered, check=choices[-1] % VALIDATED == 0)
        # The plan is made once, and executed with other data and other values of its variables.
        for table, variables in ((data, values), (other_data, other_values), (data, other_values)):
            runner.run(comparison.run(table, variables))

    with asyncio.Runner() as runner:
        compare_one()
    assert tally.compiled > 0.4 * tally.runs, tally
    assert tally.errors > 0.05 * tally.runs, tally
    assert tally.reordered < 0.2 * tally.errors, tally
    assert tally.fallbacks.keys() == {"operation", "value", "error"}, tally


@pytest.mark.parametrize("part", range(5))
def test_queries_equal_those_of_graphql_core(part: int) -> None:
    compare("query", 240)


@pytest.mark.parametrize("part", range(2))
def test_mutations_equal_those_of_graphql_core(part: int) -> None:
    compare("mutation", 240)


@pytest.mark.parametrize("part", range(2))
def test_events_equal_those_of_graphql_core(part: int) -> None:
    compare("subscription", 160)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
@pytest.mark.parametrize(("operation", "cases"), [("query", 1500), ("mutation", 600), ("subscription", 400)])
def test_many_operations_equal_those_of_graphql_core(operation: str, cases: int, part: int) -> None:
    compare(operation, cases)
