"""A proxy in front of the sandbox that injects network faults."""

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from typing_extensions import override

from integration_tests.network_faults import (
    HARMLESS,
    PERMANENT,
    TIMEOUTS,
    TRANSIENT,
    Ending,
    NetworkFault,
    RawResponse,
    Sent,
    repeated,
    unchanged,
)
from integration_tests.threaded_server import ThreadedServer
from sandbox.request import parse_request

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
# A reset discards the bytes that have not arrived, so those before it get this time.
_SECONDS_BEFORE_RESET = 0.005


@dataclass(frozen=True)
class FaultRates:
    """How likely a request is to meet each kind of fault, from 0 to 1.

    Attributes:
        harmless: The response arrives complete, in an unusual form.
        transient: The request fails, and can succeed if it is sent again.
        timeout: The response comes too late.
        repeated: The response is the last page of the same list once more.
        permanent: The request is rejected.
    """

    harmless: float = 0.0
    transient: float = 0.0
    timeout: float = 0.0
    repeated: float = 0.0
    permanent: float = 0.0


NO_FAULTS = FaultRates()


class FaultyProxy(ThreadedServer):
    """Forward requests to the sandbox, and return the responses with faults.

    What happens to a request depends on the seed, on its target and on how many requests had the
    same target before, but not on which of several threads comes first.

    Attributes:
        rates: How likely faults are; can be changed while the proxy runs.
        requests: How many requests the current process has sent.
        fault_counts: How often each fault has happened.
    """

    def __init__(self, upstream: str, seed: int, rates: FaultRates) -> None:
        super().__init__()
        self.rates = rates
        self.requests = 0
        self.fault_counts: Counter[str] = Counter()
        self._seed = seed
        self._upstream = urlsplit(upstream)
        self._targets: Counter[str] = Counter()
        self._last_pages: dict[tuple[str | None, ...], RawResponse] = {}
        self._due: tuple[int, Callable[[], object]] | None = None

    def begin_process(self) -> None:
        """Start anew: the next process gets no repeated pages of the previous one."""
        self.requests = 0
        self._last_pages.clear()
        self._due = None

    def at_request(self, number: int, action: Callable[[], object]) -> None:
        """Run an action at this request of the current process, if it sends that many."""
        self._due = (number, action)

    @override
    async def respond(self, head: bytes, writer: asyncio.StreamWriter) -> bool:
        self._count()
        response = await self._forward(head)
        return await _deliver(writer, self._with_fault(head, response))

    def _count(self) -> None:
        self.requests += 1
        if self._due is not None and self.requests >= self._due[0]:
            (_, action), self._due = self._due, None
            action()

    async def _forward(self, head: bytes) -> RawResponse:
        """Return the sandbox's response, fetched over a separate connection."""
        first, *lines = head.split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        writer.write(b"\r\n".join([first, b"Connection: close", *kept]))
        response_head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        writer.close()
        return RawResponse(response_head + b"\r\n\r\n", body).with_header(b"Connection", None)

    def _with_fault(self, head: bytes, response: RawResponse) -> Sent:
        target = head.split(b" ", 2)[1].decode()
        self._targets[target] += 1
        rng = random.Random(f"{self._seed} {self._targets[target]} {target}")
        request = parse_request("GET", target, {}, 0.0)
        key = (request.kind, request.account_id, request.param("workspace[id]"))
        last = self._last_pages.pop(key, None)
        fault = self._draw(rng, can_repeat=last is not None)
        self.fault_counts[fault.__name__] += 1
        if fault is repeated and last is not None:
            response = last
        # Never a third time: some vendors end a list with an empty page that comes three times.
        if response.is_page and fault not in PERMANENT and fault is not repeated:
            self._last_pages[key] = response
        return fault(response, rng)

    def _draw(self, rng: random.Random, *, can_repeat: bool) -> NetworkFault:
        rates, draw = self.rates, rng.random()
        for rate, choice in (
            (rates.harmless, HARMLESS),
            (rates.transient, TRANSIENT),
            (rates.timeout, TIMEOUTS),
            (rates.permanent, PERMANENT),
            (rates.repeated if can_repeat else 0.0, (repeated,)),
        ):
            if draw < rate:
                return rng.choice(choice)
            draw -= rate
        return unchanged


async def _deliver(writer: asyncio.StreamWriter, sent: Sent) -> bool:
    """Send a response, and return whether the connection is kept."""
    writer.write(sent.content[: sent.pause_at])
    await writer.drain()
    if sent.pause:
        await asyncio.sleep(sent.pause)
    writer.write(sent.content[sent.pause_at :])
    await writer.drain()
    if sent.ending is Ending.RESET:
        await asyncio.sleep(_SECONDS_BEFORE_RESET)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
    return sent.ending is Ending.KEPT
