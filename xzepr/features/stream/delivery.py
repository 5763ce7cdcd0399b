"""Delivering messages to brokers that refuse some of them for what they are: which one it is, how all others go on
without it, and how it is sent again."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import structlog

from xzepr.features.stream.model import Message
from xzepr.features.stream.portion import Portion
from xzepr.features.stream.published import Published, refuses_everything
from xzepr.features.stream.route import Fit, Passage
from xzepr.features.stream.seat import Seat
from xzepr.infra.kafka.cluster import BrokerError, RefusedError, RivalError

_LONGEST_PAUSE_SECONDS = 30.0
_log = structlog.stdlib.get_logger(__name__)


class Delivery:
    """What a route's leader knows of the messages that brokers refuse, and how much it sends at once."""

    def __init__(self, route: str, most_messages: int, *, most_refused: int, poll_seconds: float) -> None:
        """At most so many messages are sent at once; after so many dead letters in a row the topic is at fault. What
        administrators ask for is looked up every `poll_seconds`, and later after something was refused again."""
        self._route = route
        self._most_refused = most_refused
        self._poll_seconds = poll_seconds
        self._portion = Portion(most_messages)
        self._sent: Sequence[Message] = ()
        self._again = False
        self._suspect = 0
        self._refused_in_a_row = 0
        self._look_at = 0.0
        self._pause_seconds = poll_seconds
        self._succeeding = False
        self.left_out: set[int] = set()
        """Positions that are passed over."""

    @property
    def most(self) -> int:
        """How many messages the next portion may have."""
        return self._portion.size

    def is_full(self, messages: Sequence[Message]) -> bool:
        """Whether the next portion takes no more than these."""
        return self._portion.is_full(messages)

    async def send(self, passage: Passage, messages: Sequence[Message], after: Published) -> None:
        """Moves a portion of the stream, but for what is left out. Raises what `Passage.publish` raises."""
        await self._publish(passage, [one for one in messages if one.position not in self.left_out], after)
        self._portion.moved(messages)

    async def send_again(self, ours: Seat, passage: Passage, fit: Callable[[], Awaitable[Fit]]) -> bool:
        """Sends one dead letter again, if an administrator has asked for it; whether there was one. One at a time: the
        newest instruction in Kafka is then the only one that may be done there and not yet forgotten here. Whatever
        becomes of it, the stream goes on before the next one is tried."""
        if time.monotonic() < self._look_at:
            return False
        due = await ours.due(passage.so_far.position)
        if due is None:
            self._pause_seconds = self._poll_seconds
            self._look_again_after(self._poll_seconds)
            return False
        message = await ours.message(due.position)
        if message is None or message.id != due.message_id:
            await ours.bury(due.position, due.message_id, "the stream no longer holds it")
            return True
        succeeding = self._succeeding
        self._look_again_after(self._pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
        if not succeeding:  # whoever asks has perhaps mended the topic, and the message now fits with its data
            passage.fits(await fit())
        await self._publish(passage, [message], replace(passage.so_far, retry_id=due.retry_id), again=True)
        await ours.arrived(due.retry_id)
        self._look_at, self._pause_seconds, self._succeeding = 0.0, self._poll_seconds, True
        return True

    def _look_again_after(self, seconds: float) -> None:
        self._look_at = time.monotonic() + seconds
        self._succeeding = False

    async def _publish(
        self, passage: Passage, messages: Sequence[Message], after: Published, *, again: bool = False
    ) -> None:
        self._sent, self._again = messages, again
        try:
            await passage.publish(messages, after)
        except (RefusedError, RivalError):
            raise
        except BrokerError:
            if not again:
                self._portion.failed()
            raise
        if messages and not again:
            self._refused_in_a_row = 0

    async def single_out(self, ours: Seat, reason: str) -> None:
        """Of what was refused together, sends less next time; a message that is refused alone, twice, becomes a dead
        letter. It is written down before the position passes it, so that a successor leaves out the same."""
        if len(self._sent) > 1:
            self._portion.refused(self._sent)
            return
        [culprit] = self._sent
        if not self._again:
            if culprit.position != self._suspect:
                self._suspect = culprit.position  # the topic's limit may be new: it is read again before the second try
                return
            if self._refused_in_a_row >= self._most_refused:
                raise refuses_everything(self._route, self._refused_in_a_row, reason)
            self._refused_in_a_row += 1
            self._portion.found()
        await ours.bury(culprit.position, culprit.id, reason)
        _log.error("relay.refused", route=self._route, position=culprit.position, id=culprit.id, reason=reason)
