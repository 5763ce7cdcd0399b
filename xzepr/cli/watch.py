"""A live subscription in a thread of its own: it prints what it hears, and others wait for what they expect."""

from threading import Condition, Thread

from xzepr.cli.client.http import Client
from xzepr.cli.client.subscription import Frame, Lost, Subscription
from xzepr.cli.output import print_json_line, print_line
from xzepr.cli.tail import SUBSCRIBE, told
from xzepr.core.errors import CannotStart

_SECONDS = 10.0


class Watch:
    """Everything that happens from now on, in order."""

    def __init__(self, client: Client, *, as_json: bool) -> None:
        """Listens once this returns: the first frame says from where."""
        variables = {"after": None, "kinds": None, "filter": None, "receivers": True}
        self._subscription = Subscription(client, SUBSCRIBE, variables, open_seconds=_SECONDS)
        first = self._subscription.receive(_SECONDS)
        if first is None:
            self._subscription.close()
            raise CannotStart("the hub does not begin the subscription")
        self._as_json = as_json
        self._heard: list[Frame] = []
        self._ended: str | None = None
        self._news = Condition()
        self._thread = Thread(target=self._listen, name="subscription", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the subscription."""
        self._subscription.close()
        self._thread.join(_SECONDS)

    def expect(self, kind: str, name: str) -> None:
        """Waits for the next message, which must be of this kind (`event.recorded`) and about the receiver or group of
        this name. Raises CannotStart for another and for none."""
        with self._news:
            if not self._news.wait_for(lambda: self._heard or self._ended, _SECONDS) or not self._heard:
                raise CannotStart(f"the subscription did not tell of {kind} {name}: {self._ended or 'it is silent'}")
            frame = self._heard.pop(0)
        if (_kind(frame), _name(frame)) != (kind, name):
            raise CannotStart(f"the subscription told of {_kind(frame)} {_name(frame)}, and {kind} {name} was due")

    def finish(self) -> None:
        """Raises CannotStart when it told of more than was expected."""
        with self._news:
            if self._heard:
                raise CannotStart(f"the subscription told of {_kind(self._heard[0])} too, and nothing was due")

    def _listen(self) -> None:
        try:
            while True:
                frame = self._subscription.receive(None)
                if frame is not None and frame["__typename"] != "Checkpoint":
                    self._tell(frame)
        except (Lost, CannotStart) as error:
            with self._news:
                self._ended = str(error)
                self._news.notify_all()

    def _tell(self, frame: Frame) -> None:
        if self._as_json:
            print_json_line(frame)
        else:
            text, style = told(frame)
            print_line(f"      ◂ {text}", style or "cyan")
        with self._news:
            self._heard.append(frame)
            self._news.notify_all()


def _kind(frame: Frame) -> str:
    return str(frame["kind"]).lower().replace("_", ".", 1)


def _name(frame: Frame) -> str:
    about = frame.get("eventReceiverGroup") or frame.get("eventReceiver") or frame["event"]["eventReceiver"]
    return str(about["name"])
