"""The configuration that a supervisor sends to a worker: through a socket, because any user can read a command line."""

import pickle
import socket
from dataclasses import dataclass, field
from pathlib import Path

from xzepr.core.errors import CannotStart
from xzepr.infra.crypto import KeyPair
from xzepr.settings import Settings

READY = b"+"  # a worker sends it once it accepts connections


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """The complete configuration of a worker, which reads no settings itself, so that all workers have equal ones."""

    worker: int
    """The number of the worker, from 1. A worker that replaces another one gets its number."""
    settings: Settings
    database_url: str = field(repr=False)
    keys: KeyPair
    listener_fd: int
    """File descriptor of the bound socket that all workers share."""
    metrics_folder: Path
    """Folder of the metrics that all workers share."""

    def pickled(self) -> bytes:
        """Returns the configuration as bytes for `receive_config`."""
        return pickle.dumps(self)


def receive_config(channel: socket.socket) -> WorkerConfig:
    """Reads the one message of the supervisor. Raises CannotStart if the supervisor has ended."""
    with channel.makefile("rb") as stream:
        try:
            config = pickle.load(stream)  # noqa: S301 - from the process that started this one
        except EOFError:
            raise CannotStart("a worker is started by `xzepr serve --workers` only") from None
    assert isinstance(config, WorkerConfig), "the supervisor has the version of its workers"
    return config
