"""Following the stream over a WebSocket (graphql-transport-ws), from one connection to the next."""

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import Any, cast

import orjson
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from xzepr.cli.client.http import Client, JsonObject, Refused, is_local
from xzepr.core.backoff import Backoff

Frame = JsonObject

_SUBPROTOCOL = Subprotocol("graphql-transport-ws")
_ID = "1"
_OPEN_SECONDS = 10.0
_MAX_FRAME_BYTES = 64 * 1024 * 1024
_TOKEN_NOT_TAKEN = 4403
_FIRST_PAUSE_SECONDS = 0.25
_MOST_SECONDS = 15.0


class Lost(Exception):
    """The connection ended or could not be made; the message says how. Another try may succeed."""


class Subscription:
    """One subscription on one connection."""

    def __init__(self, client: Client, document: str, variables: JsonObject, *, open_seconds: float) -> None:
        """Connects. Raises Lost, and Refused when the hub does not take the credential."""
        self._client = client
        self._opened = ExitStack()
        self._socket = _open(client, open_seconds, self._opened)
        try:
            self._begin(document, variables, open_seconds)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection; may be called from another thread, which ends `receive` too."""
        self._opened.close()

    def receive(self, seconds: float | None) -> Frame | None:
        """The next frame of the stream, or None when none came for so long. Raises Lost and Refused."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                message = self._message(None if deadline is None else deadline - time.monotonic())
            except TimeoutError:
                return None
            match message:
                case {"type": "next", "payload": {"errors": [_, *_] as errors}}:
                    raise self._client.refusal(cast(object, errors))
                case {"type": "next", "payload": {"data": {"stream": dict()}}}:
                    return cast(Frame, message["payload"]["data"]["stream"])
                case {"type": "error", "payload": errors}:
                    raise self._client.refusal(errors)
                case {"type": "complete"}:
                    raise Lost("the hub ended the subscription")
                case {"type": "ping"}:
                    self._send({"type": "pong"})
                case _:
                    pass

    def _begin(self, document: str, variables: JsonObject, seconds: float) -> None:
        secret = self._client.presented.secret if self._client.presented else None
        self._send({"type": "connection_init", "payload": {"authorization": f"Bearer {secret}"} if secret else {}})
        try:
            while self._message(seconds).get("type") != "connection_ack":
                pass
        except TimeoutError:
            raise Lost("the hub does not acknowledge the connection") from None
        self._send({"id": _ID, "type": "subscribe", "payload": {"query": document, "variables": variables}})

    def _send(self, message: JsonObject) -> None:
        try:
            self._socket.send(orjson.dumps(message).decode())
        except ConnectionClosed as error:
            raise self._ended(error) from None

    def _message(self, seconds: float | None) -> JsonObject:
        try:
            received = orjson.loads(self._socket.recv(None if seconds is None else max(seconds, 0.0)))
        except ConnectionClosed as error:
            raise self._ended(error) from None
        except orjson.JSONDecodeError:
            raise Lost("what came is not graphql-transport-ws") from None
        return cast(JsonObject, received) if isinstance(received, dict) else {}

    def _ended(self, error: ConnectionClosed) -> Exception:
        close = error.rcvd
        if close is None:
            return Lost("the connection broke")
        if close.code == _TOKEN_NOT_TAKEN:
            return self._client.refusal([{"message": close.reason, "extensions": {"code": "INVALID_TOKEN"}}])
        return Lost(f"the hub closed the connection: {close.reason or close.code}")


def _open(client: Client, seconds: float, opened: ExitStack) -> ClientConnection:
    url = f"ws{client.hub.removeprefix('http')}/graphql"
    try:
        connection = connect(
            url,
            subprotocols=[_SUBPROTOCOL],
            open_timeout=seconds,
            close_timeout=1,
            max_size=_MAX_FRAME_BYTES,
            proxy=None if is_local(client.hub) else True,
        )
        return opened.enter_context(connection)
    except (OSError, TimeoutError, EOFError) as error:
        raise Lost(f"the hub at {client.hub} cannot be reached: {_reason(error)}") from error
    except (InvalidURI, WebSocketException) as error:
        raise Lost(f"{client.hub} takes no WebSocket: {error}") from error


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _wait_for_ever() -> float | None:
    return None


class Follower:
    """Frames of the stream without a gap or a repeat, over as many connections as it takes. `cursor` is where it is."""

    def __init__(
        self,
        client: Client,
        document: str,
        variables: JsonObject,
        *,
        after: str | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`document` subscribes to `stream(after: $after …)` and selects `cursor`; `notice` hears of lost
        connections."""
        self._client = client
        self._document = document
        self._variables = variables
        self._notice = notice
        self._subscription: Subscription | None = None
        self._backoff = Backoff(_FIRST_PAUSE_SECONDS, _MOST_SECONDS, jitter=0.5)
        self.cursor = after

    def close(self) -> None:
        """Ends the present connection."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def frames(self, patience: Callable[[], float | None] = _wait_for_ever) -> Generator[Frame | None]:
        """Every frame, and None whenever nothing came for as many seconds as `patience` gives then. Raises Refused
        when the hub does not let the stream go on."""
        while True:
            try:
                frame = self._connection(patience()).receive(patience())
            except (Lost, Refused) as error:
                self.close()
                if isinstance(error, Refused) and not error.passing:
                    raise
                yield from self._back_off(error, patience)
                continue
            if frame is not None:
                self._backoff.reset()
                self.cursor = cast(str, frame["cursor"])
            yield frame

    def _connection(self, seconds: float | None) -> Subscription:
        if self._subscription is None:
            variables: dict[str, Any] = {**self._variables, "after": self.cursor}
            open_seconds = _OPEN_SECONDS if seconds is None else min(max(seconds, 0.1), _OPEN_SECONDS)
            self._subscription = Subscription(self._client, self._document, variables, open_seconds=open_seconds)
        return self._subscription

    def _back_off(self, why: Lost | Refused, patience: Callable[[], float | None]) -> Generator[None]:
        """0.25 s, doubled with each failure up to 15 s, and half of it by chance, so that a hub that comes back is not
        met by all its clients at once; and no less than the hub asked for."""
        pause = self._backoff.next()
        if isinstance(why, Refused):
            pause += min(why.retry_after, _MOST_SECONDS)
        self._notice(f"{why}; trying again")
        end = time.monotonic() + pause
        while (left := end - time.monotonic()) > 0:
            seconds = patience()
            time.sleep(left if seconds is None else min(left, seconds))
            if seconds is not None:
                yield None
