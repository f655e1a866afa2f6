"""The way of messages from the workers to the output."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from airbyte_cdk.models import AirbyteMessage, Level
from airbyte_cdk.sources.message import MessageRepository
from airbyte_cdk.sources.message.repository import LogMessage

if TYPE_CHECKING:
    from queue import Queue

    from airbyte_cdk.sources.streams.concurrent.partitions.types import QueueItem


# So many messages wait in one place of the queue; pages can have thousands.
_BATCH = 100


class Outbox(MessageRepository):
    """Keeps the order in which messages hold.

    A worker's message takes its place in the queue behind the worker's records. The main thread,
    which empties the queue, hands its own messages over at once: so the last state of a stream is
    written before the status that says that the stream is complete. The CDK's own repository puts
    both behind that status.

    Args:
        queue: The way from the workers to the main thread. Its places are batches.
    """

    def __init__(self, queue: "Queue[QueueItem | list[AirbyteMessage]]") -> None:
        self._queue = queue
        self._main_thread = threading.get_ident()
        self._at_once: deque[AirbyteMessage] = deque()

    def emit_message(self, message: AirbyteMessage) -> None:
        """Hands a message on; from a worker, waits while the queue is full."""
        if threading.get_ident() == self._main_thread:
            self._at_once.append(message)
        else:
            self._queue.put(message)

    def emit_batch(self, messages: list[AirbyteMessage]) -> None:
        """Hands the messages of a worker on in one go; waits while the queue is full.

        A record that goes through the queue by itself costs as much there as in all other steps.
        """
        for first in range(0, len(messages), _BATCH):
            self._queue.put(messages[first : first + _BATCH])

    def log_message(self, level: Level, message_provider: Callable[[], LogMessage]) -> None:
        """Drops the CDK's logs of requests, which only its Connector Builder reads."""

    def consume_queue(self) -> Iterable[AirbyteMessage]:
        """The main thread's messages."""
        while self._at_once:
            yield self._at_once.popleft()
