"""An HTTP adapter that returns only complete responses, and limits their time and size.

It also ensures that no response is taken for another request's response.
"""

import http.client
import io
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3 import HTTPResponse, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HeaderParsingError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util.response import assert_header_parsing

# Seconds to connect, and seconds without a byte of the response. Truto waits for the vendor, which
# can take long, but after a minute it no longer responds.
TIMEOUT = (10.0, 60.0)

# Seconds for a whole exchange, from resolving the host's name to the last trailer. The timeouts
# above limit only the time between two bytes: a response that comes byte by byte could block its
# account, and so the sync, for days.
RESPONSE_TIMEOUT = 300.0

# Bytes of a response, decompressed. The largest page that Truto's vendors can send is far smaller.
MAX_RESPONSE_BYTES = 64_000_000

# Bytes of all responses in memory at once. A parsed page takes many times its bytes.
CAPACITY_BYTES = 8_000_000

_CHUNK_SIZE = 64 * 1024
# A server that sends more than this many will never send the response itself.
_MAX_INTERIM_RESPONSES = 10
_LENGTH = re.compile(r"[0-9]+", re.ASCII)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class MalformedHeadError(http.client.HTTPException):
    """A response whose head is invalid, so that its body has no certain end either."""


class ResponseTooLargeError(requests.RequestException):
    """A response of more than MAX_RESPONSE_BYTES."""


class _Exchange:
    """A request and its response, with the time for both.

    Attributes:
        ends_at: When the adapter gives up; monotonic.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.ends_at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: If none are.
        """
        remaining = self.ends_at - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"the response was not complete after {self._seconds:.0f} s")
        return remaining


class _Thread(threading.local):
    """A thread's current exchange, the bytes it holds, and how long it has waited for memory."""

    budget: "MemoryBudget | None" = None
    held = 0
    waited = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.exchange = _Exchange(RESPONSE_TIMEOUT)


_THREAD = _Thread()


class MemoryBudget:
    """Limits the bytes of the responses that threads hold, from their arrival until `release`.

    A thread that needs more waits until others have released theirs. One thread at a time may
    exceed the limit, so that there is always progress.
    """

    def __init__(self) -> None:
        self._released = threading.Condition()
        self._total = 0
        self._exceeding: int | None = None

    def acquire(self, size: int) -> None:
        """Count bytes that this thread is about to hold; wait until there is room for them."""
        me, began = threading.get_ident(), time.monotonic()
        with self._released:
            while self._total + size > CAPACITY_BYTES and self._exceeding not in {None, me}:
                self._released.wait()
            if self._total + size > CAPACITY_BYTES:
                self._exceeding = me
            self._total += size
        _THREAD.budget = self
        _THREAD.held += size
        waited = time.monotonic() - began
        _THREAD.waited += waited
        # A slow destination does not use up the server's time.
        _THREAD.exchange.ends_at += waited

    def _release(self, size: int) -> None:
        with self._released:
            self._total -= size
            if self._exceeding == threading.get_ident():
                self._exceeding = None
            self._released.notify_all()

    @staticmethod
    def release() -> None:
        """Note that this thread no longer holds a response."""
        budget, _THREAD.budget = _THREAD.budget, None
        size, _THREAD.held = _THREAD.held, 0
        if budget is not None:
            budget._release(size)  # noqa: SLF001 - its own

    @staticmethod
    def waited() -> float:
        """Return the seconds that this thread has waited in all."""
        return _THREAD.waited


class _TimedSocket(io.RawIOBase):
    """Reads the bytes of one response, but only until its exchange times out."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._socket = connection
        # This keeps the socket open until the response is read.
        self._file = connection.makefile("rb", buffering=0)
        self._timeout = connection.gettimeout()
        self._exchange = _THREAD.exchange
        self.is_ended = False

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int | None:
        if self.is_ended:
            return None
        remaining = self._exchange.remaining()
        self._socket.settimeout(min(filter(None, (self._timeout, remaining))))
        try:
            size = self._file.readinto(buffer)
        except TimeoutError:
            size = None
        # If the exchange's time is up, raise that error instead of the one between two bytes.
        self._exchange.remaining()
        if size is None:
            raise TimeoutError("timed out")
        return size

    @override
    def close(self) -> None:
        self._file.close()
        super().close()

    def shut(self) -> None:
        """Make the connection unusable for another request."""
        # Through an HTTPS proxy, urllib3 wraps the socket in an object without a `shutdown`.
        inner = getattr(self._socket, "socket", self._socket)
        with suppress(OSError):
            inner.shutdown(socket.SHUT_RDWR)


class _ResponseStream(io.BufferedReader):
    """Closes the connection if more bytes arrived than belong to the response."""

    raw: _TimedSocket

    @override
    def close(self) -> None:
        if not self.closed:
            self.raw.is_ended = True
            if self.peek(1):
                self.raw.shut()
        super().close()


class _Response(http.client.HTTPResponse):
    """Skips interim responses, and closes a connection that is not safe to reuse."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = _ResponseStream(_TimedSocket(sock), _CHUNK_SIZE)

    @override
    def begin(self) -> None:
        self._read_head()
        interim = 0
        while self.status < HTTPStatus.OK and self.status != HTTPStatus.SWITCHING_PROTOCOLS:
            # For example a 103. http.client would take it for the response, and the response for
            # the next request's.
            interim += 1
            if interim > _MAX_INTERIM_RESPONSES:
                raise MalformedHeadError("too many interim responses came")
            vars(self)["headers"] = None
            self._read_head()
        lengths = {value.strip() for value in self.headers.get_all("Content-Length", [])}
        if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
            # The end of the body is uncertain.
            raise MalformedHeadError("the length of the body is not valid")
        is_clear = len(lengths) + self.chunked == 1
        if interim or not is_clear or self.status in {101, 204, 304}:
            self.will_close = True

    def _read_head(self) -> None:
        """Read a head; reject one with a line that is not a header."""
        super().begin()
        try:
            assert_header_parsing(self.headers)
        except HeaderParsingError:
            raise MalformedHeadError("a header is not valid") from None
        if not all(map(_HEADER_NAME.fullmatch, self.headers)):
            raise MalformedHeadError("the name of a header is not valid")


def _connect_in_time(connection: HTTPConnection, connect: Callable[[], None]) -> None:
    """Connect in a separate thread, and abandon it when the exchange's time is up.

    Nothing else can interrupt a name service that hangs, or a long list of addresses that do not
    answer.
    """
    exchange, abandoned = _THREAD.exchange, threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        _THREAD.exchange = exchange
        try:
            connect()
        except BaseException as error:  # noqa: BLE001 - raised in the calling thread
            failures.append(error)
        if abandoned.is_set():
            connection.close()

    thread = threading.Thread(target=run, name="connect", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        # This machine allows no further thread.
        connect()
        return
    thread.join(max(0.0, exchange.ends_at - time.monotonic()))
    if thread.is_alive():
        abandoned.set()
        raise ConnectTimeoutError("no connection was established in time")
    for failure in failures:
        raise failure


class _Connection(HTTPConnection):
    response_class = _Response

    @override
    def connect(self) -> None:
        _connect_in_time(self, super().connect)


class _SecureConnection(HTTPSConnection):
    response_class = _Response

    @override
    def connect(self) -> None:
        _connect_in_time(self, super().connect)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class DeadlineAdapter(HTTPAdapter):
    """Reads the whole body of each response, within RESPONSE_TIMEOUT, before it returns it.

    Args:
        lifetime: Seconds for all exchanges together, from now on.
    """

    def __init__(self, *args: Any, lifetime: float = float("inf"), **kwargs: Any) -> None:
        self._memory = MemoryBudget()
        self._ends_at = time.monotonic() + lifetime
        super().__init__(*args, **kwargs)

    @override
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _use_pools(self.poolmanager)

    @override
    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        _use_pools(manager)
        return manager

    @override
    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        # This thread has parsed and delivered its previous response.
        MemoryBudget.release()
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise requests.ConnectTimeout("no time is left", request=request)
        _THREAD.exchange = _Exchange(min(RESPONSE_TIMEOUT, left))
        response = super().send(request, *args, **{**kwargs, "stream": True})
        try:
            response.raw = io.BytesIO(_body(response.raw, self._memory))
        except ProtocolError as error:
            raise requests.exceptions.ChunkedEncodingError(error, request=request) from error
        except DecodeError as error:
            raise requests.exceptions.ContentDecodingError(error, request=request) from error
        except (ReadTimeoutError, TimeoutError) as error:
            raise requests.ReadTimeout(error, request=request) from error
        except SSLError as error:
            raise requests.exceptions.SSLError(error, request=request) from error
        return response


def _use_pools(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


def _body(raw: HTTPResponse, memory: MemoryBudget) -> bytes:
    """Return the bytes of a body, decoded.

    Raises:
        ResponseTooLargeError: If there are too many.
    """
    try:
        return b"".join(_iter_chunks(raw, memory))
    except BaseException:
        # The next request must not take the remaining bytes for its response.
        raw.close()
        MemoryBudget.release()
        raise


def _iter_chunks(raw: HTTPResponse, memory: MemoryBudget) -> Iterator[bytes]:
    size = 0
    # read1 returns the bytes that have arrived, and blocks only while there are none.
    while chunk := raw.read1(_CHUNK_SIZE, decode_content=True):
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise ResponseTooLargeError(f"more than {MAX_RESPONSE_BYTES // 1_000_000} MB")
        memory.acquire(len(chunk))
        yield chunk
