"""Subscribes to the stream over a WebSocket (graphql-transport-ws), and resumes after a lost connection."""

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import Any, cast

import orjson
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from xzepr.cli.client.http import HubClient, JsonObject, RequestRejected, is_local
from xzepr.core.backoff import Backoff

Frame = JsonObject

_SUBPROTOCOL = Subprotocol("graphql-transport-ws")
_ID = "1"
_OPEN_TIMEOUT_SECONDS = 10.0
_MAX_FRAME_BYTES = 64 * 1024 * 1024
_FORBIDDEN = 4403  # the close code with which the hub rejects a credential
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 15.0


class SubscriptionLost(Exception):
    """The connection ended or could not be opened; the message gives the reason. Another attempt may succeed."""


class HubSubscription:
    """One subscription on one connection."""

    def __init__(self, client: HubClient, document: str, variables: JsonObject, *, open_timeout_seconds: float) -> None:
        """Connects and subscribes. Raises SubscriptionLost, or RequestRejected if the hub rejects the credential."""
        self._client = client
        self._exit_stack = ExitStack()
        self._socket = _connect(client, open_timeout_seconds, self._exit_stack)
        try:
            self._subscribe(document, variables, open_timeout_seconds)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection. A call from another thread makes `receive` raise SubscriptionLost."""
        self._exit_stack.close()

    def receive(self, timeout_seconds: float | None) -> Frame | None:
        """Returns the next frame of the stream, or None if none arrives within `timeout_seconds`.

        Raises SubscriptionLost or RequestRejected.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            try:
                message = self._receive_message(None if deadline is None else deadline - time.monotonic())
            except TimeoutError:
                return None
            match message:
                case {"type": "next", "payload": {"errors": [_, *_] as errors}}:
                    raise self._client.rejection(cast(object, errors))
                case {"type": "next", "payload": {"data": {"stream": dict()}}}:
                    return cast(Frame, message["payload"]["data"]["stream"])
                case {"type": "error", "payload": errors}:
                    raise self._client.rejection(errors)
                case {"type": "complete"}:
                    raise SubscriptionLost("the hub ended the subscription")
                case {"type": "ping"}:
                    self._send({"type": "pong"})
                case _:
                    pass

    def _subscribe(self, document: str, variables: JsonObject, seconds: float) -> None:
        secret = self._client.credential.secret if self._client.credential else None
        self._send({"type": "connection_init", "payload": {"authorization": f"Bearer {secret}"} if secret else {}})
        try:
            while self._receive_message(seconds).get("type") != "connection_ack":
                pass
        except TimeoutError:
            raise SubscriptionLost("the hub did not acknowledge the connection in time") from None
        self._send({"id": _ID, "type": "subscribe", "payload": {"query": document, "variables": variables}})

    def _send(self, message: JsonObject) -> None:
        try:
            self._socket.send(orjson.dumps(message).decode())
        except ConnectionClosed as error:
            raise self._close_error(error) from None

    def _receive_message(self, seconds: float | None) -> JsonObject:
        try:
            message = orjson.loads(self._socket.recv(None if seconds is None else max(seconds, 0.0)))
        except ConnectionClosed as error:
            raise self._close_error(error) from None
        except orjson.JSONDecodeError:
            raise SubscriptionLost("the hub sent a message that is not graphql-transport-ws") from None
        return cast(JsonObject, message) if isinstance(message, dict) else {}

    def _close_error(self, error: ConnectionClosed) -> Exception:
        close = error.rcvd
        if close is None:
            return SubscriptionLost("the connection was lost")
        if close.code == _FORBIDDEN:
            return self._client.rejection([{"message": close.reason, "extensions": {"code": "INVALID_TOKEN"}}])
        return SubscriptionLost(f"the hub closed the connection: {close.reason or close.code}")


def _connect(client: HubClient, seconds: float, exit_stack: ExitStack) -> ClientConnection:
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
        return exit_stack.enter_context(connection)
    except (OSError, TimeoutError, EOFError) as error:
        raise SubscriptionLost(f"the hub at {client.hub} cannot be reached: {_reason(error)}") from error
    except (InvalidURI, WebSocketException) as error:
        raise SubscriptionLost(f"{client.hub} does not accept a WebSocket: {error}") from error


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _no_timeout() -> float | None:
    return None


class ResumingSubscription:
    """A subscription that reconnects when its connection is lost, without a gap or a repeat in the stream."""

    def __init__(
        self,
        client: HubClient,
        document: str,
        variables: JsonObject,
        *,
        after: str | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepares a subscription without connecting.

        `document` must subscribe to `stream(after: $after …)` and select `cursor`. `notify` is called with a message
        whenever the connection is lost.
        """
        self._client = client
        self._document = document
        self._variables = variables
        self._notify = notify
        self._subscription: HubSubscription | None = None
        self._backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, jitter=0.5)
        self.cursor = after
        """The cursor of the last frame received; the next connection resumes after it."""

    def close(self) -> None:
        """Closes the current connection."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def frames(self, timeout: Callable[[], float | None] = _no_timeout) -> Generator[Frame | None]:
        """Yields every frame, and None whenever no frame arrives within `timeout()` seconds.

        `timeout` is called before each wait; it returns None to wait indefinitely. Raises RequestRejected for an error
        that retrying cannot fix.
        """
        while True:
            try:
                frame = self._connected(timeout()).receive(timeout())
            except (SubscriptionLost, RequestRejected) as error:
                self.close()
                if isinstance(error, RequestRejected) and not error.temporary:
                    raise
                yield from self._back_off(error, timeout)
                continue
            if frame is not None:
                self._backoff.reset()
                self.cursor = cast(str, frame["cursor"])
            yield frame

    def _connected(self, seconds: float | None) -> HubSubscription:
        if self._subscription is None:
            variables: dict[str, Any] = {**self._variables, "after": self.cursor}
            open_timeout_seconds = (
                _OPEN_TIMEOUT_SECONDS if seconds is None else min(max(seconds, 0.1), _OPEN_TIMEOUT_SECONDS)
            )
            self._subscription = HubSubscription(
                self._client, self._document, variables, open_timeout_seconds=open_timeout_seconds
            )
        return self._subscription

    def _back_off(
        self, error: SubscriptionLost | RequestRejected, timeout: Callable[[], float | None]
    ) -> Generator[None]:
        """Waits before the next attempt, and yields None at each time-out.

        The delay is 0.25 s, doubled with each failure up to 15 s, then multiplied by a random factor between 0.5 and 1
        so that the clients of a restarted hub do not reconnect all at once. The hub's `retryAfter`, up to 15 s, is
        added.
        """
        delay = self._backoff.next()
        if isinstance(error, RequestRejected):
            delay += min(error.retry_after_seconds, _LONGEST_PAUSE_SECONDS)
        self._notify(f"{error}; trying again")
        deadline = time.monotonic() + delay
        while (remaining := deadline - time.monotonic()) > 0:
            seconds = timeout()
            time.sleep(remaining if seconds is None else min(remaining, seconds))
            if seconds is not None:
                yield None
