"""What an error of the database means for the caller."""

import psycopg
import pytest
from psycopg import errors
from psycopg_pool import PoolTimeout

from xzepr.core.errors import Overloaded, StorageFull, TimedOut, Unavailable
from xzepr.infra.db import ConnectionLost, StatementRefused, problem_of


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (PoolTimeout("all are in use"), Unavailable),
        (errors.LockNotAvailable(), Overloaded),
        (errors.QueryCanceled(), TimedOut),
        (errors.AdminShutdown(), ConnectionLost),
        (errors.IdleInTransactionSessionTimeout(), ConnectionLost),
        (errors.ConnectionFailure(), ConnectionLost),
        (psycopg.OperationalError("the connection is lost"), ConnectionLost),
        (errors.DiskFull(), StorageFull),
        (errors.CheckViolation(), StatementRefused),
        (errors.UntranslatableCharacter(), StatementRefused),
        (errors.PipelineAborted("pipeline aborted"), StatementRefused),
    ],
)
def test_database_error_is_mapped_to_problem(error: psycopg.Error, meaning: type[Exception]):
    assert type(problem_of(error)) is meaning


@pytest.mark.parametrize(
    ("first", "meaning"), [(errors.LockNotAvailable(), Overloaded), (errors.CheckViolation(), StatementRefused)]
)
def test_aborted_pipeline_is_mapped_by_its_cause(first: psycopg.Error, meaning: type[Exception]):
    with pytest.raises(errors.PipelineAborted) as aborted:
        _leave_a_pipeline_after(first)
    assert type(problem_of(aborted.value)) is meaning


def _leave_a_pipeline_after(first: psycopg.Error) -> None:
    """As psycopg does: what it finds while it leaves takes the place of what it found before."""
    try:
        raise first
    finally:
        raise errors.PipelineAborted("pipeline aborted")
