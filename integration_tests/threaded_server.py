"""A server for raw responses, in its own thread."""

import asyncio
import threading
from abc import ABC, abstractmethod
from types import TracebackType

from typing_extensions import Self

# Cursors are sent in the URL.
_MAX_HEAD = 256 * 1024


class ThreadedServer(ABC):
    """Listen on a local port as long as the context lasts, and answer each request."""

    def __init__(self) -> None:
        self._port = 0
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._listening = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name=type(self).__name__, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @abstractmethod
    async def respond(self, head: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer a request, and return whether to keep the connection."""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10), "the server does not listen"
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._loop
        assert self._stopping
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", limit=_MAX_HEAD, backlog=500)
        self._port = server.sockets[0].getsockname()[1]
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._listening.set()
        await self._stopping.wait()
        server.close()
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections[task] = writer
        try:
            while await self.respond(await reader.readuntil(b"\r\n\r\n"), writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            # The client has left: it timed out, was killed or has finished.
            pass
        finally:
            writer.close()
            del self._connections[task]
