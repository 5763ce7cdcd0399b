"""Extensions of an ASGI scope by which an application controls the connection of its client."""

from starlette.types import Scope

DROP = "xzepr.drop"  # a function that ends the connection at once
UNSENT = "xzepr.unsent"  # a function that returns how many bytes wait for the client to read
WRITE = "xzepr.write"  # of a WebSocket: a function that writes a frame at once, or returns False


def drop(scope: Scope) -> bool:
    """Ends a connection at once and discards unsent data. Returns False if the server does not support it."""
    if (drop_connection := scope.get("extensions", {}).get(DROP)) is None:
        return False
    drop_connection()
    return True
