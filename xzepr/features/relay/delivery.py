"""Delivering messages to brokers that refuse some of them for what they are: which one it is, how all others go on
without it, and how it is sent again."""

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import structlog

from xzepr.core.backoff import Backoff
from xzepr.features.relay import dead_letter_store
from xzepr.features.relay.batch_size import AdaptiveBatchSize
from xzepr.features.relay.leadership import Leadership
from xzepr.features.relay.model import Published, everything_rejected
from xzepr.features.relay.route import RouteWriter, TopicLimits
from xzepr.features.stream.model import Message
from xzepr.features.stream.reader import StreamReader
from xzepr.infra.kafka.cluster import BrokerError, CompetingProducerError, RejectedError

_LONGEST_PAUSE_SECONDS = 30.0
_log = structlog.stdlib.get_logger(__name__)


class Delivery:
    """What a route's leader knows of the messages that brokers refuse, and how much it sends at once."""

    def __init__(self, route: str, max_messages: int, *, max_rejected: int, poll_seconds: float) -> None:
        """At most so many messages are sent at once; after so many dead letters in a row the topic is at fault. What
        administrators ask for is looked up every `poll_seconds`, and later after something was refused again."""
        self._route = route
        self._max_rejected = max_rejected
        self._poll_seconds = poll_seconds
        self._batch_size = AdaptiveBatchSize(max_messages)
        self._sent: Sequence[Message] = ()
        self._is_retry = False
        self._suspect_position = 0
        self._rejected_in_a_row = 0
        self._next_retry_at = -math.inf
        self._backoff = Backoff(poll_seconds, _LONGEST_PAUSE_SECONDS)
        self._retries_succeed = False
        self.skipped: set[int] = set()
        """Positions that are passed over."""

    @property
    def batch_size(self) -> int:
        """How many messages the next portion may have."""
        return self._batch_size.size

    def is_full(self, messages: Sequence[Message]) -> bool:
        """Whether the next portion takes no more than these."""
        return self._batch_size.is_full(messages)

    async def send(self, writer: RouteWriter, messages: Sequence[Message], after: Published) -> None:
        """Moves a portion of the stream, but for what is left out. Raises what `Passage.publish` raises."""
        await self._publish(writer, [one for one in messages if one.position not in self.skipped], after)
        self._batch_size.succeeded(messages)

    async def retry_dead_letter(
        self, leader: Leadership, writer: RouteWriter, read_limits: Callable[[], Awaitable[TopicLimits]]
    ) -> bool:
        """Sends one dead letter again, if an administrator has asked for it; whether there was one. One at a time: the
        newest instruction in Kafka is then the only one that may be done there and not yet forgotten here. Whatever
        becomes of it, the stream goes on before the next one is tried."""
        if time.monotonic() < self._next_retry_at:
            return False
        retry = await leader.run(dead_letter_store.next_retry, leader.route, writer.published_so_far.position)
        if retry is None:
            self._backoff.reset()
            self._schedule_retry(self._poll_seconds)
            return False
        message = await leader.read(StreamReader.message, retry.position)
        if message is None or message.id != retry.message_id:
            reason = "the stream no longer holds it"
            await leader.run(dead_letter_store.record, leader.route, retry.position, retry.message_id, reason)
            return True
        succeeding = self._retries_succeed
        self._schedule_retry(self._backoff.next())
        if not succeeding:  # whoever asks has perhaps mended the topic, and the message now fits with its data
            writer.use_limits(await read_limits())
        await self._publish(writer, [message], replace(writer.published_so_far, retry_id=retry.retry_id), is_retry=True)
        await leader.run(dead_letter_store.delete_retried, retry.retry_id)
        self._backoff.reset()
        self._next_retry_at, self._retries_succeed = -math.inf, True
        return True

    def _schedule_retry(self, seconds: float) -> None:
        self._next_retry_at = time.monotonic() + seconds
        self._retries_succeed = False

    async def _publish(
        self, writer: RouteWriter, messages: Sequence[Message], after: Published, *, is_retry: bool = False
    ) -> None:
        self._sent, self._is_retry = messages, is_retry
        try:
            await writer.publish(messages, after)
        except (RejectedError, CompetingProducerError):
            raise
        except BrokerError:
            if not is_retry:
                self._batch_size.failed()
            raise
        if messages and not is_retry:
            self._rejected_in_a_row = 0

    async def isolate_rejected(self, leader: Leadership, reason: str) -> None:
        """Of what was refused together, sends less next time; a message that is refused alone, twice, becomes a dead
        letter. It is written down before the position passes it, so that a successor leaves out the same."""
        if len(self._sent) > 1:
            self._batch_size.rejected(self._sent)
            return
        [culprit] = self._sent
        if not self._is_retry:
            if culprit.position != self._suspect_position:
                self._suspect_position = (
                    culprit.position
                )  # the topic's limit may be new: it is read again before the second try
                return
            if self._rejected_in_a_row >= self._max_rejected:
                raise everything_rejected(self._route, self._rejected_in_a_row, reason)
            self._rejected_in_a_row += 1
            self._batch_size.isolated()
        await leader.run(dead_letter_store.record, leader.route, culprit.position, culprit.id, reason)
        _log.error("relay.refused", route=self._route, position=culprit.position, id=culprit.id, reason=reason)
