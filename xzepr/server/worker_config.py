"""What a supervisor gives to a worker that it starts: through a pipe, since a command line is for all to read."""

import pickle
import socket
from dataclasses import dataclass, field
from pathlib import Path

from xzepr.core.errors import CannotStart
from xzepr.infra.crypto import KeyPair
from xzepr.settings import Settings

ANSWERS = b"+"
"""What a worker says, once, when it answers."""


@dataclass(frozen=True, slots=True)
class Handover:
    """All that a worker has to know. It reads no settings of its own: all workers have the same."""

    worker: int
    """Its number, from 1; a worker that takes the place of another has the same."""
    settings: Settings
    database_url: str = field(repr=False)
    keys: KeyPair
    listener: int
    """Descriptor of the bound socket that all workers share."""
    metrics: Path
    """Folder in which all workers count."""

    def packed(self) -> bytes:
        """As bytes for `received`."""
        return pickle.dumps(self)


def received(channel: socket.socket) -> Handover:
    """What the supervisor sends first; it sends nothing more. Raises CannotStart when it has gone."""
    with channel.makefile("rb") as stream:
        try:
            handover = pickle.load(stream)  # noqa: S301 - from the process that started this one, and from nobody else
        except EOFError:
            raise CannotStart("a worker is started by `xzepr serve --workers`, and by nothing else") from None
    assert isinstance(handover, Handover), "the supervisor is of the same version"
    return handover
