"""Delivery to brokers that reject some messages: isolates a rejected message, skips it, and retries it on request."""

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

_MAX_RETRY_PAUSE_SECONDS = 30.0
_log = structlog.stdlib.get_logger(__name__)


class Delivery:
    """Publishes a route's messages in batches, and turns messages that brokers never accept into dead letters."""

    def __init__(self, route: str, max_messages: int, *, max_rejected: int, poll_seconds: float) -> None:
        """`max_messages` limits a batch. After `max_rejected` dead letters in a row, the topic is at fault.

        Retries are looked up every `poll_seconds`, and less often after one was rejected again.
        """
        self._route = route
        self._max_rejected = max_rejected
        self._poll_seconds = poll_seconds
        self._batch_size = AdaptiveBatchSize(max_messages)
        self._sent: Sequence[Message] = ()
        self._is_retry = False
        self._suspect_position = 0
        self._rejected_in_a_row = 0
        self._next_retry_at = -math.inf
        self._backoff = Backoff(poll_seconds, _MAX_RETRY_PAUSE_SECONDS)
        self._last_retry_succeeded = False
        self.published_messages = 0
        """Number of messages that this process has published, retried dead letters included."""
        self.skipped: set[int] = set()
        """Positions of dead letters ahead, which are skipped."""

    @property
    def batch_size(self) -> int:
        """The maximum number of messages in the next batch."""
        return self._batch_size.size

    def is_full(self, messages: Sequence[Message]) -> bool:
        """Whether these messages fill the next batch."""
        return self._batch_size.is_full(messages)

    async def send(self, writer: RouteWriter, messages: Sequence[Message], published: Published) -> None:
        """Publishes a batch without its dead letters. Raises the errors of `RouteWriter.publish`."""
        await self._publish(
            writer, [message for message in messages if message.position not in self.skipped], published
        )
        self._batch_size.succeeded(messages)

    async def retry_dead_letter(
        self, leader: Leadership, writer: RouteWriter, read_limits: Callable[[], Awaitable[TopicLimits]]
    ) -> bool:
        """Publishes one dead letter that an administrator wants to retry. Returns whether there was one.

        Only one at a time: then the newest retry in Kafka is the only one that may be published but not yet deleted
        from the database. Whatever the outcome, new messages are published before the next retry.
        """
        if time.monotonic() < self._next_retry_at:
            return False
        retry = await leader.run(dead_letter_store.next_retry, leader.route, writer.published.position)
        if retry is None:
            self._backoff.reset()
            self._schedule_retry(self._poll_seconds)
            return False
        message = await leader.read(StreamReader.message, retry.position)
        if message is None or message.id != retry.message_id:
            reason = "the stream no longer has this message"
            await leader.run(dead_letter_store.record, leader.route, retry.position, retry.message_id, reason)
            return True
        last_succeeded = self._last_retry_succeeded
        self._schedule_retry(self._backoff.next())
        if not last_succeeded:  # the topic may have been fixed, and the message may now fit with its data
            writer.use_limits(await read_limits())
        await self._publish(writer, [message], replace(writer.published, retry_id=retry.retry_id), is_retry=True)
        await leader.run(dead_letter_store.delete_retried, retry.retry_id)
        self._backoff.reset()
        self._next_retry_at, self._last_retry_succeeded = -math.inf, True
        return True

    def _schedule_retry(self, seconds: float) -> None:
        self._next_retry_at = time.monotonic() + seconds
        self._last_retry_succeeded = False

    async def _publish(
        self, writer: RouteWriter, messages: Sequence[Message], published: Published, *, is_retry: bool = False
    ) -> None:
        self._sent, self._is_retry = messages, is_retry
        try:
            await writer.publish(messages, published)
        except (RejectedError, CompetingProducerError):
            raise
        except BrokerError:
            if not is_retry:
                self._batch_size.failed()
            raise
        self.published_messages += len(messages)
        if messages and not is_retry:
            self._rejected_in_a_row = 0

    async def isolate_rejected(self, leader: Leadership, reason: str) -> None:
        """Halves a rejected batch; records a message that was rejected alone, twice, as a dead letter.

        The record precedes the position in Kafka, so that the next leader skips the same message. Raises RelayStopped
        after too many dead letters in a row.
        """
        if len(self._sent) > 1:
            self._batch_size.rejected(self._sent)
            return
        [message] = self._sent
        if not self._is_retry:
            if message.position != self._suspect_position:
                # The topic's limits may have changed: they are read again before the second attempt.
                self._suspect_position = message.position
                return
            if self._rejected_in_a_row >= self._max_rejected:
                raise everything_rejected(self._route, self._rejected_in_a_row, reason)
            self._rejected_in_a_row += 1
            self._batch_size.isolated()
        await leader.run(dead_letter_store.record, leader.route, message.position, message.id, reason)
        _log.error("relay.refused", route=self._route, position=message.position, id=message.id, reason=reason)
