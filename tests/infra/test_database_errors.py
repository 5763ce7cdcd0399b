"""Database errors are mapped to problems for the caller."""

import psycopg
import pytest
from psycopg import errors
from psycopg_pool import PoolTimeout

from xzepr.core.errors import Overloaded, StorageFull, TimedOut, Unavailable
from xzepr.infra.db import ConnectionLost, StatementError, problem_of


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PoolTimeout("all are in use"), Unavailable),
        (errors.LockNotAvailable(), Overloaded),
        (errors.QueryCanceled(), TimedOut),
        (errors.AdminShutdown(), ConnectionLost),
        (errors.IdleInTransactionSessionTimeout(), ConnectionLost),
        (errors.ConnectionFailure(), ConnectionLost),
        (psycopg.OperationalError("the connection is lost"), ConnectionLost),
        (errors.DiskFull(), StorageFull),
        (errors.CheckViolation(), StatementError),
        (errors.UntranslatableCharacter(), StatementError),
        (errors.PipelineAborted("pipeline aborted"), StatementError),
    ],
)
def test_database_error_is_mapped_to_problem(error: psycopg.Error, expected: type[Exception]):
    assert type(problem_of(error)) is expected


@pytest.mark.parametrize(
    ("cause", "expected"), [(errors.LockNotAvailable(), Overloaded), (errors.CheckViolation(), StatementError)]
)
def test_aborted_pipeline_is_mapped_by_its_cause(cause: psycopg.Error, expected: type[Exception]):
    with pytest.raises(errors.PipelineAborted) as aborted:
        _abort_pipeline_after(cause)
    assert type(problem_of(aborted.value)) is expected


def _abort_pipeline_after(cause: psycopg.Error) -> None:
    """Raises `PipelineAborted` while handling `cause`, as psycopg does on leaving a pipeline."""
    try:
        raise cause
    finally:
        raise errors.PipelineAborted("pipeline aborted")
