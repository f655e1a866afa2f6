"""An HTTP adapter for whole responses: each to its request, in time, and of a sane size."""

import http.client
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3 import HTTPResponse, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import DecodeError, ProtocolError, ReadTimeoutError, SSLError

# Seconds to connect, and seconds without a byte of the response. Truto waits for the vendor, which
# can take long; a response that takes a minute does not come at all.
TIMEOUT = (10.0, 60.0)

# Seconds for a whole response. The read timeout limits only the time between two bytes: a response
# that comes byte by byte could block its account, and with it the sync, for days.
RESPONSE_TIMEOUT = 300.0

# Bytes of a response, decompressed. The largest page that Truto's vendors can send is far smaller.
MAX_RESPONSE_BYTES = 64_000_000

# Bytes of the responses that are in memory at once. A parsed page takes many times its bytes.
CAPACITY_BYTES = 8_000_000

_CHUNK_SIZE = 64 * 1024
# A server that sends more of them in front of one response never sends it.
_MAX_INTERIM_RESPONSES = 10


class ResponseTooLargeError(requests.RequestException):
    """A response of more than MAX_RESPONSE_BYTES."""


class _Thread(threading.local):
    """What a thread holds, and how long it has waited for that in all."""

    budget: "MemoryBudget | None" = None
    held = 0
    waited = 0.0


_THREAD = _Thread()


class MemoryBudget:
    """Bounds the bytes of the responses that threads hold, from their arrival until `release`.

    A thread that needs more waits until others have released theirs. One of them at a time may
    exceed the bound, so that some thread always gets on.
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
        _THREAD.waited += time.monotonic() - began

    def _release(self, size: int) -> None:
        with self._released:
            self._total -= size
            if self._exceeding == threading.get_ident():
                self._exceeding = None
            self._released.notify_all()

    @staticmethod
    def release() -> None:
        """Note that this thread holds no response any more."""
        budget, _THREAD.budget = _THREAD.budget, None
        size, _THREAD.held = _THREAD.held, 0
        if budget is not None:
            budget._release(size)  # noqa: SLF001 - its own

    @staticmethod
    def waited() -> float:
        """Return the seconds that this thread has waited in all."""
        return _THREAD.waited


class _TimedSocket(io.RawIOBase):
    """The bytes of one response, as long as its deadline has not passed."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._socket = connection
        # It keeps the socket open until the response is read.
        self._file = connection.makefile("rb", buffering=0)
        self._timeout = connection.gettimeout()
        # A slow destination does not use up the server's time.
        self._began = time.monotonic() - MemoryBudget.waited()
        self.is_ended = False

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int | None:
        if self.is_ended:
            return None
        deadline = self._began + MemoryBudget.waited() + RESPONSE_TIMEOUT
        remaining = max(0.001, deadline - time.monotonic())
        self._socket.settimeout(min(filter(None, (self._timeout, remaining))))
        with suppress(TimeoutError):
            size = self._file.readinto(buffer)
            if time.monotonic() <= deadline:
                return size
        if time.monotonic() <= deadline:
            raise TimeoutError("timed out")
        raise TimeoutError(f"the response was not complete after {RESPONSE_TIMEOUT:.0f} s")

    @override
    def close(self) -> None:
        self._file.close()
        super().close()

    def shut(self) -> None:
        """Make the connection unusable for another request."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class _ResponseStream(io.BufferedReader):
    """Closes the connection if more arrived than belongs to the response."""

    raw: _TimedSocket

    @override
    def close(self) -> None:
        if not self.closed:
            self.raw.is_ended = True
            if self.peek(1):
                self.raw.shut()
        super().close()


class _Response(http.client.HTTPResponse):
    """Reads over interim responses, and leaves no connection in doubt for another request."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = _ResponseStream(_TimedSocket(sock), _CHUNK_SIZE)

    @override
    def begin(self) -> None:
        super().begin()
        interim = 0
        while self.status < HTTPStatus.OK and self.status != HTTPStatus.SWITCHING_PROTOCOLS:
            # A 103, for example. http.client would take it for the response, and the response for
            # that to the next request.
            interim += 1
            if interim > _MAX_INTERIM_RESPONSES:
                raise http.client.HTTPException("too many interim responses came")
            vars(self)["headers"] = None
            super().begin()
        lengths = self.headers.get_all("Content-Length", [])
        is_clear = len(set(lengths)) + self.chunked == 1 and all(map(str.isdigit, lengths))
        if interim or not is_clear or self.status in {101, 204, 304}:
            self.will_close = True


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class DeadlineAdapter(HTTPAdapter):
    """Reads the whole body of each response, within RESPONSE_TIMEOUT, before it returns it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._memory = MemoryBudget()
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
        # What this thread fetched before is parsed and written.
        MemoryBudget.release()
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
        # The rest of it must not be taken for the response to the next request.
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
