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


class Outbox(MessageRepository):
    """Keeps the order in which messages hold.

    A worker's message takes its place in the queue behind the worker's records. The main thread,
    which empties the queue, hands its own messages over at once: so the last state of a stream is
    written before the status that says that the stream is complete. The CDK's own repository puts
    both behind that status.

    Args:
        queue: The queue that the workers' records go through.
    """

    def __init__(self, queue: "Queue[QueueItem]") -> None:
        self._queue = queue
        self._main_thread = threading.get_ident()
        self._at_once: deque[AirbyteMessage] = deque()

    def emit_message(self, message: AirbyteMessage) -> None:
        """Hands a message on; from a worker, waits while the queue is full."""
        if threading.get_ident() == self._main_thread:
            self._at_once.append(message)
        else:
            self._queue.put(message)

    def log_message(self, level: Level, message_provider: Callable[[], LogMessage]) -> None:
        """Drops the CDK's logs of requests, which only its Connector Builder reads."""

    def consume_queue(self) -> Iterable[AirbyteMessage]:
        """The main thread's messages."""
        while self._at_once:
            yield self._at_once.popleft()
