"""A subscription in a thread: prints every message as it arrives, and lets the caller wait for expected messages."""

from threading import Condition, Thread

from xzepr.cli.client.http import HubClient
from xzepr.cli.client.subscription import Frame, HubSubscription, SubscriptionLost
from xzepr.cli.output import print_json_line, print_line
from xzepr.cli.tail import SUBSCRIBE, format_frame
from xzepr.core.errors import CannotStart

_TIMEOUT_SECONDS = 10.0


class StreamWatch:
    """Prints every message of the stream from now on, and checks their order."""

    def __init__(self, client: HubClient, *, as_json: bool) -> None:
        """Subscribes, and waits for the first frame, which fixes the starting position. Raises CannotStart."""
        variables = {"after": None, "kinds": None, "filter": None, "receivers": True, "groups": True}
        self._subscription = HubSubscription(client, SUBSCRIBE, variables, open_timeout_seconds=_TIMEOUT_SECONDS)
        first = self._subscription.receive(_TIMEOUT_SECONDS)
        if first is None:
            self._subscription.close()
            raise CannotStart(f"the hub did not start the subscription within {_TIMEOUT_SECONDS:.0f} s")
        self._as_json = as_json
        self._pending: list[Frame] = []
        self._end_reason: str | None = None
        self._changed = Condition()
        self._thread = Thread(target=self._receive_all, name="subscription", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the subscription."""
        self._subscription.close()
        self._thread.join(_TIMEOUT_SECONDS)

    def expect(self, kind: str, name: str) -> None:
        """Waits for the next message and checks its kind (`event.recorded`) and its receiver's or group's name.

        Raises CannotStart for a different message, or if none arrives within 10 s.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._pending or self._end_reason, _TIMEOUT_SECONDS) or (
                not self._pending
            ):
                reason = self._end_reason or f"no message arrived for {_TIMEOUT_SECONDS:.0f} s"
                raise CannotStart(f"the subscription did not deliver {kind} {name}: {reason}")
            frame = self._pending.pop(0)
        if (_kind(frame), _name(frame)) != (kind, name):
            raise CannotStart(f"the subscription delivered {_kind(frame)} {_name(frame)} instead of {kind} {name}")

    def finish(self) -> None:
        """Raises CannotStart if an unexpected message has arrived."""
        with self._changed:
            if self._pending:
                raise CannotStart(f"the subscription delivered an unexpected {_kind(self._pending[0])}")

    def _receive_all(self) -> None:
        try:
            while True:
                frame = self._subscription.receive(None)
                if frame is not None and frame["__typename"] != "Checkpoint":
                    self._handle(frame)
        except (SubscriptionLost, CannotStart) as error:
            with self._changed:
                self._end_reason = str(error)
                self._changed.notify_all()

    def _handle(self, frame: Frame) -> None:
        if self._as_json:
            print_json_line(frame)
        else:
            text, style = format_frame(frame)
            print_line(f"      ◂ {text}", style or "cyan")
        with self._changed:
            self._pending.append(frame)
            self._changed.notify_all()


def _kind(frame: Frame) -> str:
    return str(frame["kind"]).lower().replace("_", ".", 1)


def _name(frame: Frame) -> str:
    subject = frame.get("eventReceiverGroup") or frame.get("eventReceiver") or frame["event"]["eventReceiver"]
    return str(subject["name"])
