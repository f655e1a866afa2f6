"""What can happen to an answer on its way: pure functions from its bytes to those that are sent."""

import gzip
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from sandbox import faults
from sandbox.answers import Answer
from sandbox.faults import Fault
from sandbox.limits import RetryAfter

# The read times out after half a second: see `Processes.start`.
TOO_LATE_SECONDS = 0.7


class End(Enum):
    """What becomes of the connection when all is sent."""

    KEPT = "kept"
    CLOSED = "closed"
    RESET = "reset"


@dataclass(frozen=True)
class Sent:
    """What goes over the wire in the place of an answer.

    Attributes:
        content: The bytes.
        end: What becomes of the connection behind them.
        pause_at: The place in the bytes at which there is a pause.
        pause: Seconds of it.
    """

    content: bytes
    end: End = End.KEPT
    pause_at: int = 0
    pause: float = 0.0


@dataclass(frozen=True)
class Whole:
    """A whole answer: the head with the empty line at its end, and the body."""

    head: bytes
    body: bytes

    @property
    def content(self) -> bytes:
        return self.head + self.body

    @property
    def is_page(self) -> bool:
        return self.head.startswith(b"HTTP/1.1 200 ")

    def with_header(self, name: bytes, value: bytes | None) -> "Whole":
        """With a header set, or without it."""
        first, *lines = self.head[:-4].split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(name.lower() + b":")]
        added = [name + b": " + value] if value is not None else []
        return replace(self, head=b"\r\n".join([first, *kept, *added]) + b"\r\n\r\n")

    def with_body(self, body: bytes) -> "Whole":
        """With another body, and its length told."""
        other = self.with_header(b"Content-Length", str(len(body)).encode())
        return replace(other, body=body)


Misfortune: TypeAlias = "Callable[[Whole, random.Random], Sent]"


def nothing(whole: Whole, _: random.Random) -> Sent:
    return Sent(whole.content)


def repeated(whole: Whole, _: random.Random) -> Sent:
    """Given the last page of the same list, instead of the one that was asked for."""
    return Sent(whole.content)


# --- the bytes are right, the way is odd: it has to be understood ---------------------------------


def in_chunks(whole: Whole, rng: random.Random) -> Sent:
    return Sent(_chunked(whole, rng).content)


def framed_by_the_end(whole: Whole, _: random.Random) -> Sent:
    return Sent(_without_length(whole).content, End.CLOSED)


def compressed(whole: Whole, _: random.Random) -> Sent:
    return Sent(_gzipped(whole).content)


def slow(whole: Whole, rng: random.Random) -> Sent:
    return Sent(whole.content, pause_at=_place(whole.content, rng), pause=rng.uniform(0.0, 0.03))


def twice(whole: Whole, _: random.Random) -> Sent:
    """The second one must not be taken for the answer to the next request."""
    return Sent(whole.content * 2)


def with_more_behind(whole: Whole, rng: random.Random) -> Sent:
    return Sent(whole.content + rng.randbytes(rng.randrange(1, 50)))


def after_a_provisional_answer(whole: Whole, _: random.Random) -> Sent:
    return Sent(b"HTTP/1.1 100 Continue\r\n\r\n" + whole.content)


# --- no whole answer arrives ----------------------------------------------------------------------


def reset(whole: Whole, rng: random.Random) -> Sent:
    return Sent(whole.content[: _place(whole.content, rng)], End.RESET)


def cut(whole: Whole, rng: random.Random) -> Sent:
    return Sent(whole.content[: _place(whole.content, rng)], End.CLOSED)


def cut_in_chunks(whole: Whole, rng: random.Random) -> Sent:
    chunked = _chunked(whole, rng).content
    return Sent(chunked[: _place(chunked, rng)], End.CLOSED)


def cut_without_length(whole: Whole, rng: random.Random) -> Sent:
    """The one cut that HTTP itself cannot tell from the end."""
    other = _without_length(whole)
    return Sent(other.head + other.body[: _place(other.body, rng)], End.CLOSED)


def late(whole: Whole, _: random.Random) -> Sent:
    return Sent(whole.content, pause=TOO_LATE_SECONDS)


def stalled(whole: Whole, rng: random.Random) -> Sent:
    return Sent(whole.content, pause_at=_place(whole.content, rng), pause=TOO_LATE_SECONDS)


# --- an answer arrives, and is none ---------------------------------------------------------------


def truncated(whole: Whole, rng: random.Random) -> Sent:
    return Sent(whole.with_body(whole.body[: _place(whole.body, rng)]).content)


def longer_than_told(whole: Whole, rng: random.Random) -> Sent:
    shorter = str(_place(whole.body, rng)).encode()
    return Sent(whole.with_header(b"Content-Length", shorter).content)


def shorter_than_told(whole: Whole, rng: random.Random) -> Sent:
    longer = str(len(whole.body) + rng.randrange(1, 100)).encode()
    return Sent(whole.with_header(b"Content-Length", longer).content, End.CLOSED)


def badly_compressed(whole: Whole, rng: random.Random) -> Sent:
    other = _gzipped(whole)
    body = bytearray(other.body)
    body[_place(other.body, rng)] ^= 1 << rng.randrange(8)
    return Sent(other.with_body(bytes(body)).content)


def not_compressed_at_all(whole: Whole, _: random.Random) -> Sent:
    return Sent(whole.with_header(b"Content-Encoding", b"gzip").content)


def another_body(whole: Whole, rng: random.Random) -> Sent:
    return Sent(whole.with_body(rng.choice(_BODIES)).content)


def another_head(whole: Whole, rng: random.Random) -> Sent:
    return Sent(rng.choice(_HEADS) + whole.body, End.CLOSED)


_BODIES = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"0",
    b'"ok"',
    b"<html><body>502 Bad Gateway</body></html>",
    b'{"result": null, "next_cursor": null}',
    b'{"result": 5, "next_cursor": null}',
    b'{"result": [], "next_cursor": {"a": 1}}',
    b'{"result": [], "next_cursor": true}',
    b'{"statusCode": 500, "message": "Internal server error"}',
    b'{"result": [NaN], "next_cursor": null}',
    b"\xff\xfe\x00\x01",
    b"[" * 5_000,
    b'{"result":' * 3_000,
)
_HEADS = (
    b"",
    b"\r\n\r\n",
    b"HTTP/1.1\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 abc\r\n\r\n",
    b"HTTP/1.1 99999 Odd\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n",
)


# --- somebody refuses ----------------------------------------------------------------------------


def rate_limited(_: Whole, rng: random.Random) -> Sent:
    seconds = rng.choice((0.0, 1.0, 2.5, 30.0, 30.0, 5_000.0))
    make = rng.choice((faults.truto_rate_limited, faults.vendor_rate_limited))
    return Sent(_written(make(seconds, rng.choice(_FORMS))).content)


def failed(_: Whole, rng: random.Random) -> Sent:
    return Sent(_written(rng.choice(_PASSING)()).content)


def refused(_: Whole, rng: random.Random) -> Sent:
    return Sent(_written(rng.choice(_LASTING)()).content)


def refused_for_all(_: Whole, rng: random.Random) -> Sent:
    return Sent(_written(rng.choice(_OF_TOKEN)()).content)


_FORMS: tuple[RetryAfter, ...] = ("seconds", "date", "ratelimit-reset", "nothing")
_PASSING: tuple[Callable[[], Fault], ...] = (
    lambda: faults.truto_failed(500),
    lambda: faults.vendor_failed(500),
    faults.bad_gateway,
    lambda: faults.vendor_failed(502),
    faults.vendor_unavailable,
    faults.gateway_timeout,
    lambda: faults.vendor_failed(504),
    lambda: faults.body("<html>520</html>", status=520, content_type="text/html"),
)
_LASTING: tuple[Callable[[], Fault], ...] = (
    faults.bad_request,
    faults.account_not_found,
    faults.account_blocked,
    faults.credentials_refused,
    faults.scopes_missing,
    faults.vendor_not_found,
    faults.vendor_refused,
    faults.stale_cursor,
    lambda: faults.body("gone", status=410, content_type="text/plain"),
)
_OF_TOKEN: tuple[Callable[[], Fault], ...] = (
    faults.token_refused,
    faults.token_forbidden,
    lambda: faults.redirect("http://127.0.0.1:1/"),
)

ODD_WAYS: tuple[Misfortune, ...] = (
    in_chunks,
    framed_by_the_end,
    compressed,
    slow,
    twice,
    with_more_behind,
    after_a_provisional_answer,
)
PASSING: tuple[Misfortune, ...] = (
    *(reset, reset, cut, cut, cut_in_chunks, cut_without_length),
    *(truncated, longer_than_told, shorter_than_told, badly_compressed, not_compressed_at_all),
    *(another_body, another_body, another_head, another_head),
    *(rate_limited, rate_limited, failed, failed),
)
# They take their time.
TIMEOUTS: tuple[Misfortune, ...] = (late, stalled)
LASTING: tuple[Misfortune, ...] = (refused, refused, refused, refused, refused_for_all)


def _place(content: bytes, rng: random.Random) -> int:
    """Any byte: where the answer ends early, it is never the whole one."""
    return rng.randrange(len(content)) if content else 0


def _chunked(whole: Whole, rng: random.Random) -> Whole:
    other = _without_length(whole).with_header(b"Transfer-Encoding", b"chunked")
    parts, rest = [], whole.body
    while rest:
        length = rng.randrange(1, len(rest) + 1)
        parts.append(b"%x\r\n%s\r\n" % (length, rest[:length]))
        rest = rest[length:]
    return replace(other, body=b"".join(parts) + b"0\r\n\r\n")


def _without_length(whole: Whole) -> Whole:
    return whole.with_header(b"Content-Length", None)


def _gzipped(whole: Whole) -> Whole:
    body = gzip.compress(whole.body, mtime=0)
    return whole.with_header(b"Content-Encoding", b"gzip").with_body(body)


def _written(fault: Fault) -> Whole:
    answer = fault.answer() if fault.answer else Answer()
    headers = {**answer.headers, "Content-Type": answer.content_type}
    lines = [
        f"HTTP/1.1 {answer.status} Odd",
        *(f"{key}: {value}" for key, value in headers.items()),
    ]
    return Whole("\r\n".join([*lines, "", ""]).encode(), b"").with_body(answer.body)
