"""A faulty server in front of the sandbox: all that can happen to an answer on its way."""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

from typing_extensions import Self

from integration_tests.misfortunes import (
    LASTING,
    ODD_WAYS,
    PASSING,
    TIMEOUTS,
    End,
    Misfortune,
    Sent,
    Whole,
    nothing,
    repeated,
)
from sandbox.request import parse_request

# Cursors travel in the URL.
_LONGEST_HEAD = 256 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
# Time for the bytes before a reset to arrive: it discards those that have not.
_SECONDS_BEFORE_RESET = 0.005


@dataclass(frozen=True)
class Weather:
    """How likely what is, from 0 to 1, for each request.

    Attributes:
        odd: The answer comes whole, in an odd way.
        passing: It fails in a way that passes.
        timeout: It comes too late.
        repeated: It is the last answer of the same list once more.
        lasting: It is refused for good.
    """

    odd: float = 0.0
    passing: float = 0.0
    timeout: float = 0.0
    repeated: float = 0.0
    lasting: float = 0.0


CALM = Weather()


class FaultyProxy:
    """Hands requests on to the sandbox, and the answers back as the weather has it.

    What happens to a request depends on the seed, on what it asks for and on how often that was
    asked for before, and not on which of several threads comes first.

    Attributes:
        weather: Can be changed while it runs.
        requests: How many requests have come to it.
        met: How often what has happened.
    """

    def __init__(self, upstream: str, seed: int, weather: Weather) -> None:
        self.weather = weather
        self.requests = 0
        self.met: Counter[str] = Counter()
        self._seed = seed
        self._upstream = urlsplit(upstream)
        self._asked: Counter[str] = Counter()
        self._last_pages: dict[tuple[str | None, ...], Whole] = {}
        self._due: tuple[int, Callable[[], object]] | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._listening = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name="faulty proxy", daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def begin(self) -> None:
        """Another process comes: what the last one was answered is not repeated to it."""
        self.requests = 0
        self._last_pages.clear()
        self._due = None

    def at_request(self, number: int, do: Callable[[], object]) -> None:
        """Does something when so many requests have come from the process, if they do."""
        self._due = (number, do)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10), "the faulty proxy does not listen"
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
        server = await asyncio.start_server(self._serve, "127.0.0.1", limit=_LONGEST_HEAD)
        self._port = server.sockets[0].getsockname()[1]
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
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
            is_kept = True
            while is_kept:
                head = await reader.readuntil(b"\r\n\r\n")
                self._count()
                whole = await self._ask(head)
                is_kept = await _deliver(writer, self._fate(head, whole))
        except (asyncio.IncompleteReadError, ConnectionError):
            # The client has gone: it timed out, was killed or is done.
            pass
        finally:
            writer.close()
            del self._connections[task]

    def _count(self) -> None:
        self.requests += 1
        if self._due is not None and self.requests >= self._due[0]:
            (_, do), self._due = self._due, None
            do()

    async def _ask(self, head: bytes) -> Whole:
        """The sandbox's answer, from a connection of its own."""
        first, *lines = head.split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        writer.write(b"\r\n".join([first, b"Connection: close", *kept]))
        answer_head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        writer.close()
        return Whole(answer_head + b"\r\n\r\n", body).with_header(b"Connection", None)

    def _fate(self, head: bytes, whole: Whole) -> Sent:
        target = head.split(b" ", 2)[1].decode()
        self._asked[target] += 1
        rng = random.Random(f"{self._seed} {self._asked[target]} {target}")
        request = parse_request("GET", target, {}, 0.0)
        which = (request.kind, request.account_id, request.param("workspace[id]"))
        last = self._last_pages.pop(which, None)
        misfortune = self._drawn(rng, can_repeat=last is not None)
        self.met[misfortune.__name__] += 1
        if misfortune is repeated and last is not None:
            whole = last
        if whole.is_page and misfortune not in LASTING:
            self._last_pages[which] = whole
        return misfortune(whole, rng)

    def _drawn(self, rng: random.Random, *, can_repeat: bool) -> Misfortune:
        weather, draw = self.weather, rng.random()
        for chance, choice in (
            (weather.odd, ODD_WAYS),
            (weather.passing, PASSING),
            (weather.timeout, TIMEOUTS),
            (weather.lasting, LASTING),
            (weather.repeated if can_repeat else 0.0, (repeated,)),
        ):
            if draw < chance:
                return rng.choice(choice)
            draw -= chance
        return nothing


async def _deliver(writer: asyncio.StreamWriter, sent: Sent) -> bool:
    """Sends an answer; true if the connection is kept."""
    writer.write(sent.content[: sent.pause_at])
    await writer.drain()
    if sent.pause:
        await asyncio.sleep(sent.pause)
    writer.write(sent.content[sent.pause_at :])
    await writer.drain()
    if sent.end is End.RESET:
        await asyncio.sleep(_SECONDS_BEFORE_RESET)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
    return sent.end is End.KEPT
