"""The sandbox on a socket: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

from aiohttp import web

from sandbox.api import Api
from sandbox.request import Request, RequestLog, parse_request

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from sandbox.api import Outcome
    from sandbox.environment import Environment

# Cursors travel in the URL and can have thousands of characters, three times as many if escaped.
_LONGEST_LINE = 256 * 1024
_BACKLOG = 1_024
# Time for the bytes before a reset to leave the socket: a reset discards those that have not.
_SECONDS_BEFORE_RESET = 0.02
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Sandbox:
    """A Truto API on a local port.

    Use it as a context manager, or call `start` and `stop`. The environment and its accounts can
    be changed from any thread while it runs.

    Attributes:
        environment: What it serves.
    """

    def __init__(self, environment: Environment, host: str = "127.0.0.1", port: int = 0) -> None:
        self.environment = environment
        self._host = host
        self._port = port
        self._log = RequestLog()
        self._api = Api(environment)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._listening = threading.Event()
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """The base address, without a slash at its end; known once the sandbox has started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def requests(self) -> list[Request]:
        """The requests so far, in order of arrival."""
        return self._log.snapshot()

    def clear(self) -> None:
        """Empty the log of requests."""
        self._log.clear()

    def expire_cursors(self, account_id: str) -> None:
        """Make every cursor handed out so far for an account one that the vendor refuses.

        Raises:
            KeyError: If there is no such account.
        """
        account = self.environment.find(account_id)
        if account is None:
            raise KeyError(account_id)
        account.expire_cursors()

    def start(self) -> None:
        """Listen; returns once requests are accepted.

        Raises:
            OSError: If the address cannot be listened on.
        """
        self._listening.clear()
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            self._thread.join()
            failure, self._failure = self._failure, None
            raise failure

    def stop(self) -> None:
        """Stop at once, whatever requests are still being answered."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = self._loop = self._stopping = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except (OSError, OverflowError) as failure:
            self._failure = failure
        finally:
            self._listening.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        protocol = web.Server(
            self._handle,
            access_log=None,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
        )
        listener = await loop.create_server(protocol, self._host, self._port, backlog=_BACKLOG)
        self._port = listener.sockets[0].getsockname()[1]
        self._loop = loop
        self._stopping = asyncio.Event()
        self._listening.set()
        await self._stopping.wait()

        # In good order would mean to wait: for answers that hang, for clients that do not read.
        # What is still at work on an answer is cancelled when the loop ends.
        listener.close()
        for connection in protocol.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        target = str(incoming.rel_url)
        request = parse_request(incoming.method, target, incoming.headers, time.monotonic())
        number = self._log.add(request)
        outcome = self._api.handle(request)
        delay = outcome.latency + outcome.delivery.delay
        if delay > 0:
            await asyncio.sleep(delay)
        if incoming.transport is not None and outcome.delivery.is_complete:
            # Before the first byte leaves: whoever has the answer finds it in the log.
            self._log.answered(number, outcome.answer.status)
        return await _deliver(incoming, outcome)


async def _deliver(incoming: web.BaseRequest, outcome: Outcome) -> web.StreamResponse:
    answer, delivery = outcome.answer, outcome.delivery
    headers = {"Content-Type": answer.content_type, **answer.headers}
    whole = web.Response(status=answer.status, body=answer.body, headers=headers)
    if delivery.reset_after == 0:
        _reset(incoming)
        return whole
    if delivery.is_complete and delivery.seconds_per_byte is None:
        return whole

    partly = web.StreamResponse(status=answer.status, headers=headers)
    partly.content_length = len(answer.body)
    try:
        await partly.prepare(incoming)
        if delivery.reset_after is not None:
            await partly.write(answer.body[: delivery.reset_after])
            await asyncio.sleep(_SECONDS_BEFORE_RESET)
            _reset(incoming)
        elif delivery.cut_after is not None:
            await partly.write(answer.body[: delivery.cut_after])
            if incoming.transport is not None:
                incoming.transport.close()
        else:
            for place in range(len(answer.body)):
                await partly.write(answer.body[place : place + 1])
                await asyncio.sleep(delivery.seconds_per_byte or 0)
    except ConnectionError:
        # The client did not wait for the end.
        pass
    return partly


def _reset(incoming: web.BaseRequest) -> None:
    """Drop the connection with a TCP reset, and what has not been sent with it."""
    if incoming.transport is None:
        return
    connection = incoming.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    incoming.transport.abort()
