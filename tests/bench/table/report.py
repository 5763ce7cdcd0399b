"""The tables of a run: its goals, its measurements, and its comparison with an earlier run."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.bench.table.figures import Summary, summary
from tests.bench.table.goals import TYPENAME, Direction, Row
from tests.bench.table.results import Run

GOAL_HEADS = ("case", "hub (min–max)", "beside", "ratio (min–max)", "by CPU", "goal", "result")
DETAIL_HEADS = ("case", "server", "/s (min–max)", "p50 ms", "p99 ms", "server CPU ms", "database CPU ms", "others")
OTHER_HEADS = ("case", "of", "medians (min–max)")
COMPARE_HEADS = ("case", "before", "after", "change", "ratio before", "after", "change", "beyond both spreads")
_DETAILS = (("p50", ".2f"), ("p99", ".2f"), ("server_ms", ".3f"), ("database_ms", ".3f"), ("others", ".0%"))
_TEXTS = ("of", "server", "goal", "result", OTHER_HEADS[-1])  # columns that are no numbers
_MUST_AGREE = ("processor", "cores", "python", "postgresql", "load_generator", "history", "subscribers", "seconds")


def goal_cells(row: Row) -> list[str]:
    """Returns the cells of a goal."""
    goal = row.goal
    if row.judged is None or row.measured is None:
        return [goal.title, "", "", "", "", goal.text, row.result]
    beside = "" if row.other is None else f"{_number(row.other.median)} {goal.unit}"
    measured = f"{_number(row.measured.median)} {goal.unit} ({_spread(row.measured)})"
    ratio = "" if row.ratio is None else f"{row.ratio.median:.2f} ({row.ratio.low:.2f}–{row.ratio.high:.2f})"
    by_cpu = "" if row.by_cpu is None else f"{row.by_cpu:.2f}"
    figures = [cell.replace(" /s", "/s") for cell in (measured, beside)]
    return [goal.title, *figures, ratio, by_cpu, goal.text, row.result]


def detail_cells(run: Run) -> list[list[str]]:
    """Returns the cells of every server and case that was loaded."""
    keys = dict.fromkeys((each.case, each.server) for each in run.measurements if "rate" in each.figures)
    return [_details(run, case, server) for case, server in keys]


def _details(run: Run, case: str, server: str) -> list[str]:
    rounds = [each.figures for each in run.measurements if (each.case, each.server) == (case, server)]
    rate = summary([figures["rate"] for figures in rounds])
    cells = [case, server, f"{_number(rate.median)} ({_spread(rate)})"]
    for figure, form in _DETAILS:
        values = [figures[figure] for figures in rounds if figure in figures]
        cells.append(format(median(values), form) if values else "")
    return cells


def other_cells(run: Run) -> list[list[str]]:
    """Returns the cells of all measurements that are not rates: the medians of their figures."""
    keys = dict.fromkeys((each.case, each.server) for each in run.measurements if "rate" not in each.figures)
    return [
        [*key, _medians([each.figures for each in run.measurements if (each.case, each.server) == key])] for key in keys
    ]


def _medians(rounds: Sequence[Mapping[str, float]]) -> str:
    summaries = {name: summary([figures[name] for figures in rounds]) for name in rounds[0]}
    return ", ".join(f"{name} {_number(each.median)} ({_spread(each)})" for name, each in summaries.items())


def compare_cells(before: Run, after: Run) -> list[list[str]]:
    """Returns the cells of every goal that both runs measured."""
    earlier = {(row.goal.title, row.goal.text): row for row in before.rows()}
    pairs = ((earlier.get((row.goal.title, row.goal.text)), row) for row in after.rows())
    return [
        [new.goal.title, *_changes(old, new), _verdict(old, new)]
        for old, new in pairs
        if old is not None and old.judged is not None and new.judged is not None
    ]


def _changes(old: Row, new: Row) -> Iterable[str]:
    for first, second in ((old.measured, new.measured), (old.ratio, new.ratio)):
        if first is None or second is None:
            yield from ("", "", "")
        else:
            yield from (_number(first.median), _number(second.median), f"{second.median / first.median - 1:+.0%}")


def _verdict(old: Row, new: Row) -> str:
    """Returns whether the value that the goal limits has changed by more than both spreads."""
    if old.judged is None or new.judged is None or old.judged.overlaps(new.judged):
        return ""
    rises = new.judged.median > old.judged.median
    return "better" if rises == (new.goal.direction is Direction.AT_LEAST) else "WORSE"


def differences(before: Run, after: Run) -> list[str]:
    """Returns the conditions in which two runs differ, so that their figures are not comparable."""
    return [
        f"{name}: {before.facts.get(name)} before, {after.facts.get(name)} after"
        for name in _MUST_AGREE
        if before.facts.get(name) != after.facts.get(name)
    ]


def headline(run: Run) -> str:
    """Returns the conditions of a run in one line."""
    facts = run.facts
    others = [each.figures["others"] for each in run.measurements if "others" in each.figures]
    parts = [
        *(["QUICK RUN, not for comparisons"] if facts["quick"] else []),
        f"{facts['rounds']} × {facts['seconds']:g} s",
        f"{facts['cores']} cores ({facts['processor']})",
        f"Python {facts['python']}",
        f"PostgreSQL {facts['postgresql']}",
        f"load: {facts['load_generator']}",
        f"{facts['history']:,} earlier events in `history`",
        f"{facts['subscribers']:,} subscribers in `fanout`",
        f"commit {facts['commit']}",
    ]
    if others:
        parts.append(f"other processes used {median(others):.0%} of the processors (at most {max(others):.0%})")
    return "; ".join(parts)


def markdown(run: Run) -> str:
    """Returns the table of goals as Markdown, without spaces around its bars: `wc -w` counts them as words."""
    cells = [goal_cells(row) for row in run.rows()]
    lines = [GOAL_HEADS, ["---"] * len(GOAL_HEADS), *([_quoted(title), *rest] for title, *rest in cells)]
    return "\n".join([headline(run) + ".", "", *(f"|{'|'.join(line)}|" for line in lines)])


def _quoted(title: str) -> str:
    """Returns a title with its GraphQL in backquotes."""
    return title.replace(TYPENAME, f"`{TYPENAME}`")


def show(run: Run) -> None:
    """Prints the tables of a run."""
    if goals := run.rows():
        print_table("Goals", GOAL_HEADS, [goal_cells(row) for row in goals])
    if details := detail_cells(run):
        print_table("Measurements", DETAIL_HEADS, details)
    if others := other_cells(run):
        print_table("Other measurements", OTHER_HEADS, others)
    for section, note in run.notes.items():
        print(f"{section}: {note}")
    print(headline(run))


def show_comparison(before: Run, after: Run) -> None:
    """Prints what has changed since an earlier run."""
    title = " → ".join(f"{run.facts['commit']}, {run.facts['date']}" for run in (before, after))
    print_table(title, COMPARE_HEADS, compare_cells(before, after))
    for difference in differences(before, after):
        print(f"not comparable: {difference}")


def print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table."""
    table = Table(title=title, title_justify="left")
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index and head not in _TEXTS else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=160).print(table)


def _spread(values: Summary) -> str:
    return f"{_number(values.low)}–{_number(values.high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"
