"""What can happen to a response on its way: functions from its bytes to the bytes to send."""

import gzip
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from sandbox import faults
from sandbox.faults import Fault
from sandbox.limits import RetryAfter
from sandbox.responses import Response

# Reads time out after half a second: see `SHORT_TIMEOUT` in `forker.py`.
TOO_LATE_SECONDS = 0.7


class Ending(Enum):
    """What happens to the connection after the last byte."""

    KEPT = "kept"
    CLOSED = "closed"
    RESET = "reset"


@dataclass(frozen=True)
class Sent:
    """What is sent in place of a response.

    Attributes:
        content: The bytes.
        ending: What happens to the connection after them.
        pause_at: The offset in the bytes at which the server pauses.
        pause: The length of the pause in seconds.
    """

    content: bytes
    ending: Ending = Ending.KEPT
    pause_at: int = 0
    pause: float = 0.0


@dataclass(frozen=True)
class RawResponse:
    """A complete response: the head with the empty line at its end, and the body."""

    head: bytes
    body: bytes

    @property
    def content(self) -> bytes:
        return self.head + self.body

    @property
    def is_page(self) -> bool:
        return self.head.startswith(b"HTTP/1.1 200 ")

    def with_header(self, name: bytes, value: bytes | None) -> "RawResponse":
        """Return a copy with this header set, or without it if the value is None."""
        first, *lines = self.head[:-4].split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(name.lower() + b":")]
        added = [name + b": " + value] if value is not None else []
        return replace(self, head=b"\r\n".join([first, *kept, *added]) + b"\r\n\r\n")

    def with_body(self, body: bytes) -> "RawResponse":
        """Return a copy with another body, and its length."""
        other = self.with_header(b"Content-Length", str(len(body)).encode())
        return replace(other, body=body)


NetworkFault: TypeAlias = "Callable[[RawResponse, random.Random], Sent]"


def unchanged(response: RawResponse, _: random.Random) -> Sent:
    return Sent(response.content)


def repeated(response: RawResponse, _: random.Random) -> Sent:
    """Send the last page of the same list instead of the requested one."""
    return Sent(response.content)


# --- an unusual but valid delivery ---------------------------------------------------------------


def in_chunks(response: RawResponse, rng: random.Random) -> Sent:
    return Sent(_chunked(response, rng).content)


def delimited_by_close(response: RawResponse, _: random.Random) -> Sent:
    return Sent(_without_length(response).content, Ending.CLOSED)


def compressed(response: RawResponse, _: random.Random) -> Sent:
    return Sent(_gzipped(response).content)


def slow(response: RawResponse, rng: random.Random) -> Sent:
    return Sent(
        response.content, pause_at=_offset(response.content, rng), pause=rng.uniform(0.0, 0.03)
    )


def twice(response: RawResponse, _: random.Random) -> Sent:
    """Send it twice: the second must not be taken for the response to the next request."""
    return Sent(response.content * 2)


def with_trailing_bytes(response: RawResponse, rng: random.Random) -> Sent:
    return Sent(response.content + rng.randbytes(rng.randrange(1, 50)))


def after_an_interim_response(response: RawResponse, _: random.Random) -> Sent:
    return Sent(b"HTTP/1.1 100 Continue\r\n\r\n" + response.content)


def after_early_hints(response: RawResponse, rng: random.Random) -> Sent:
    """Send early hints, and then the response, perhaps late."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    return Sent(hints + response.content, pause_at=len(hints), pause=rng.choice((0.0, 0.05)))


def with_padded_length(response: RawResponse, _: random.Random) -> Sent:
    """Pad the length with blanks, which HTTP allows."""
    length = b"%d \t" % len(response.body)
    return Sent(response.with_header(b"Content-Length", length).content)


# --- no complete response arrives ----------------------------------------------------------------


def reset(response: RawResponse, rng: random.Random) -> Sent:
    return Sent(response.content[: _offset(response.content, rng)], Ending.RESET)


def cut(response: RawResponse, rng: random.Random) -> Sent:
    return Sent(response.content[: _offset(response.content, rng)], Ending.CLOSED)


def cut_in_chunks(response: RawResponse, rng: random.Random) -> Sent:
    chunked = _chunked(response, rng).content
    return Sent(chunked[: _offset(chunked, rng)], Ending.CLOSED)


def cut_without_length(response: RawResponse, rng: random.Random) -> Sent:
    """Cut the response in the one way that HTTP itself cannot distinguish from its end."""
    other = _without_length(response)
    return Sent(other.head + other.body[: _offset(other.body, rng)], Ending.CLOSED)


def late(response: RawResponse, _: random.Random) -> Sent:
    return Sent(response.content, pause=TOO_LATE_SECONDS)


def stalled(response: RawResponse, rng: random.Random) -> Sent:
    return Sent(response.content, pause_at=_offset(response.content, rng), pause=TOO_LATE_SECONDS)


# --- a malformed response arrives ----------------------------------------------------------------


def truncated(response: RawResponse, rng: random.Random) -> Sent:
    return Sent(response.with_body(response.body[: _offset(response.body, rng)]).content)


def longer_than_declared(response: RawResponse, rng: random.Random) -> Sent:
    shorter = str(_offset(response.body, rng)).encode()
    return Sent(response.with_header(b"Content-Length", shorter).content)


def shorter_than_declared(response: RawResponse, rng: random.Random) -> Sent:
    longer = str(len(response.body) + rng.randrange(1, 100)).encode()
    return Sent(response.with_header(b"Content-Length", longer).content, Ending.CLOSED)


def corruptly_compressed(response: RawResponse, rng: random.Random) -> Sent:
    other = _gzipped(response)
    body = bytearray(other.body)
    body[_offset(other.body, rng)] ^= 1 << rng.randrange(8)
    return Sent(other.with_body(bytes(body)).content)


def falsely_declared_compressed(response: RawResponse, _: random.Random) -> Sent:
    return Sent(response.with_header(b"Content-Encoding", b"gzip").content)


def another_body(response: RawResponse, rng: random.Random) -> Sent:
    return Sent(response.with_body(rng.choice(_BODIES)).content)


def gateway(response: RawResponse, rng: random.Random) -> Sent:
    """Answer as a load balancer or a firewall in between does, in its own format."""
    content, _ = rng.choice(list(faults.GATEWAY_FORMS.values()))
    status = rng.choice((401, 403, 404, 429, 503, 520, 524, 530))
    head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(content)}\r\n\r\n"
    del response
    return Sent(head.encode() + content.encode())


def another_head(response: RawResponse, rng: random.Random) -> Sent:
    return Sent(rng.choice(_HEADS) + response.body, Ending.CLOSED)


_BODIES = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"0",
    b'"ok"',
    b"<html><body>502 Bad Gateway</body></html>",
    b'{"data": null, "next_cursor": null}',
    b'{"result": 5, "next_cursor": null}',
    b'{"result": [], "next_cursor": {"a": 1}}',
    b'{"result": [], "next_cursor": true}',
    b'{"statusCode": 500, "message": "Internal server error"}',
    b'{"result": [],, "next_cursor": null}',
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
    b"HTTP/1.1 99999 Unknown\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n",
)


# --- an error response ---------------------------------------------------------------------------


def rate_limited(_: RawResponse, rng: random.Random) -> Sent:
    seconds = rng.choice((0.0, 1.0, 2.5, 30.0, 30.0, 5_000.0))
    make = rng.choice((faults.truto_rate_limited, faults.vendor_rate_limited))
    return Sent(_encoded(make(seconds, rng.choice(_RETRY_AFTER_FORMS))).content)


def failed(_: RawResponse, rng: random.Random) -> Sent:
    return Sent(_encoded(rng.choice(_TRANSIENT_ERRORS)()).content)


def rejected(_: RawResponse, rng: random.Random) -> Sent:
    return Sent(_encoded(rng.choice(_PERMANENT_ERRORS)()).content)


def token_rejected(_: RawResponse, rng: random.Random) -> Sent:
    return Sent(_encoded(rng.choice(_TOKEN_ERRORS)()).content)


_RETRY_AFTER_FORMS: tuple[RetryAfter, ...] = ("seconds", "date", "ratelimit-reset", "nothing")
_TRANSIENT_ERRORS: tuple[Callable[[], Fault], ...] = (
    lambda: faults.truto_failed(500),
    lambda: faults.vendor_failed(500),
    faults.bad_gateway,
    lambda: faults.vendor_failed(502),
    faults.vendor_unavailable,
    faults.gateway_timeout,
    lambda: faults.vendor_failed(504),
    lambda: faults.body("<html>520</html>", status=520, content_type="text/html"),
)
# The vendor's 404 is not one of them: for an ActiveCampaign account it means that there are no
# segments.
_PERMANENT_ERRORS: tuple[Callable[[], Fault], ...] = (
    faults.bad_request,
    # Truto's own 404 for an account is not one of them: it proves that the account was deleted.
    faults.account_blocked,
    faults.credentials_refused,
    faults.scopes_missing,
    faults.vendor_refused,
    faults.stale_cursor,
    lambda: faults.body("gone", status=410, content_type="text/plain"),
)
_TOKEN_ERRORS: tuple[Callable[[], Fault], ...] = (
    faults.token_refused,
    faults.token_forbidden,
    lambda: faults.redirect("http://127.0.0.1:1/"),
)

HARMLESS: tuple[NetworkFault, ...] = (
    in_chunks,
    delimited_by_close,
    compressed,
    slow,
    twice,
    with_trailing_bytes,
    after_an_interim_response,
    after_early_hints,
    with_padded_length,
)
TRANSIENT: tuple[NetworkFault, ...] = (
    *(reset, reset, cut, cut, cut_in_chunks, cut_without_length),
    *(truncated, longer_than_declared, shorter_than_declared),
    *(corruptly_compressed, falsely_declared_compressed),
    *(another_body, another_body, another_head, another_head),
    *(rate_limited, rate_limited, failed, failed, gateway, gateway),
)
# These wait in real time.
TIMEOUTS: tuple[NetworkFault, ...] = (late, stalled)
PERMANENT: tuple[NetworkFault, ...] = (rejected, rejected, rejected, rejected, token_rejected)


def _offset(content: bytes, rng: random.Random) -> int:
    """Return an offset before the end, so that what ends there is never complete."""
    return rng.randrange(len(content)) if content else 0


def _chunked(response: RawResponse, rng: random.Random) -> RawResponse:
    other = _without_length(response).with_header(b"Transfer-Encoding", b"chunked")
    parts, rest = [], response.body
    while rest:
        length = rng.randrange(1, len(rest) + 1)
        parts.append(b"%x\r\n%s\r\n" % (length, rest[:length]))
        rest = rest[length:]
    return replace(other, body=b"".join(parts) + b"0\r\n\r\n")


def _without_length(response: RawResponse) -> RawResponse:
    return response.with_header(b"Content-Length", None)


def _gzipped(response: RawResponse) -> RawResponse:
    body = gzip.compress(response.body, mtime=0)
    return response.with_header(b"Content-Encoding", b"gzip").with_body(body)


def _encoded(fault: Fault) -> RawResponse:
    response = fault.response() if fault.response else Response()
    headers = {**response.headers, "Content-Type": response.content_type}
    lines = [
        f"HTTP/1.1 {response.status} Unknown",
        *(f"{key}: {value}" for key, value in headers.items()),
    ]
    return RawResponse("\r\n".join([*lines, "", ""]).encode(), b"").with_body(response.body)
