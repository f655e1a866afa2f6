"""The sandbox on a socket, with an event loop in its own thread."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sandbox.api import Api
from sandbox.request import Request, RequestLog, parse_request

if TYPE_CHECKING:
    from typing_extensions import Self

    from sandbox.environment import Environment
    from sandbox.faults import Delivery
    from sandbox.responses import Response

# A cursor is part of the URL. It can have thousands of characters, three times as many if escaped.
_MAX_LINE_LENGTH = 256 * 1024
_BACKLOG = 1_024
# The bytes before a reset need time to leave the socket, because a reset discards them there.
_SECONDS_BEFORE_RESET = 0.02
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Sandbox:
    """A Truto API on a local port.

    Use it as a context manager, or call `start` and `stop`. The environment and its accounts can
    be changed from any thread while it runs.

    Attributes:
        environment: The environment that it serves.
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
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """Return the base URL without a trailing slash, once the sandbox has started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"  # ignore-https-check

    @property
    def config(self) -> dict[str, Any]:
        """Return a configuration of the connector that reads all accounts."""
        accounts = self.environment.accounts
        return {
            "token": self.environment.token,
            "integrated_account_id": accounts[0].id if accounts else "",
            "additional_accounts": {"mode": "all"},
            "api_url": self.url,
        }

    @property
    def requests(self) -> list[Request]:
        """Return the requests so far, in order of arrival."""
        return self._log.snapshot()

    def clear(self) -> None:
        """Clear the log of requests."""
        self._log.clear()

    def start(self) -> None:
        """Listen, and return once requests are accepted.

        Raises:
            OSError: If it cannot listen on the address.
        """
        self._ready.clear()
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            failure, self._failure = self._failure, None
            raise failure

    def stop(self) -> None:
        """Stop at once, even if requests are still pending."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = self._loop = self._stopping = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except (OSError, OverflowError) as failure:
            self._failure = failure
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        protocol = web.Server(
            self._handle,
            access_log=None,
            max_line_size=_MAX_LINE_LENGTH,
            max_field_size=_MAX_LINE_LENGTH,
        )
        listener = await loop.create_server(protocol, self._host, self._port, backlog=_BACKLOG)
        self._port = listener.sockets[0].getsockname()[1]
        self._loop = loop
        self._stopping = asyncio.Event()
        self._ready.set()
        await self._stopping.wait()

        # A graceful shutdown would wait for responses that hang and for clients that do not read.
        # The end of the loop cancels the handlers that are still running.
        listener.close()
        for connection in protocol.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        target = str(incoming.rel_url)
        request = parse_request(incoming.method, target, incoming.headers, time.monotonic())
        number = self._log.add(request)
        response, delivery = self._api.handle(request)
        for _ in range(delivery.preludes if delivery.prelude else 0):
            if incoming.transport is not None:
                incoming.transport.write(delivery.prelude)
            await asyncio.sleep(delivery.seconds_per_prelude)
        while delivery.endless and incoming.transport is not None:
            incoming.transport.write(delivery.endless)
            await asyncio.sleep(delivery.seconds_per_prelude)
        if delivery.delay > 0:
            await asyncio.sleep(delivery.delay)
        if incoming.transport is not None and delivery.is_complete:
            # Set it before the first byte, so that a client with a response finds it in the log.
            self._log.set_status(number, response.status)
        return await _deliver(incoming, response, delivery)


async def _deliver(
    incoming: web.BaseRequest, response: Response, delivery: Delivery
) -> web.StreamResponse:
    headers = {"Content-Type": response.content_type, **response.headers}
    whole = web.Response(status=response.status, body=response.body, headers=headers)
    if delivery.reset_after == 0:
        _reset(incoming)
        return whole
    if delivery.is_complete and delivery.seconds_per_byte is None:
        return whole

    partial = web.StreamResponse(status=response.status, headers=headers)
    partial.content_length = len(response.body)
    try:
        await partial.prepare(incoming)
        if delivery.reset_after is not None:
            await partial.write(response.body[: delivery.reset_after])
            await asyncio.sleep(_SECONDS_BEFORE_RESET)
            _reset(incoming)
        elif delivery.cut_after is not None:
            await partial.write(response.body[: delivery.cut_after])
            if incoming.transport is not None:
                incoming.transport.close()
        else:
            for index in range(len(response.body)):
                await partial.write(response.body[index : index + 1])
                await asyncio.sleep(delivery.seconds_per_byte or 0)
    except ConnectionError:
        # The client left before the end of the body.
        pass
    return partial


def _reset(incoming: web.BaseRequest) -> None:
    """Drop the connection and all unsent bytes with a TCP reset."""
    if incoming.transport is None:
        return
    connection = incoming.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    incoming.transport.abort()
