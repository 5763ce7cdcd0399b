"""A run of the measurements as JSON: facts about the machine, and each measurement of each round."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import orjson

from tests.bench.table.figures import Measurement
from tests.bench.table.goals import Row, rows

FORMAT = 1


class NoRunError(Exception):
    """A file that holds no run of the measurements."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the measurements."""

    facts: Mapping[str, object]
    sections: Sequence[str]
    notes: Mapping[str, str]
    """For each section without measurements, the reason."""
    measurements: Sequence[Measurement]

    def rows(self) -> list[Row]:
        """Returns the rows of the goals."""
        return rows(self.measurements, self.sections, self.notes)


def write(run: Run, path: Path) -> None:
    """Writes a run, and the results of its goals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    goals = [_as_json(row) for row in run.rows()]
    content = {"format": FORMAT, **asdict(run), "goals": goals}
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def read(path: Path) -> Run:
    """Returns the run in a file. Raises NoRunError if it holds none."""
    try:
        content = cast(dict[str, Any], orjson.loads(path.read_bytes()))
        if content["format"] != FORMAT:
            raise NoRunError(f"{path} has the format {content['format']}, not {FORMAT}")
        measurements = [Measurement(**each) for each in content["measurements"]]
        return Run(content["facts"], content["sections"], content["notes"], measurements)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise NoRunError(f"{path} holds no run of `make bench`: {error}") from error


def _as_json(row: Row) -> dict[str, object]:
    judged = row.judged
    return {
        "title": row.goal.title,
        "goal": row.goal.text,
        "result": row.result,
        "value": None if judged is None else asdict(judged),
    }
