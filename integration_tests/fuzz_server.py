"""A server whose responses are fuzzed: heads, bodies, encodings, framing and timing."""

import asyncio
import gzip
import json
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from typing_extensions import override

from integration_tests.threaded_server import ThreadedServer

# The server sends this text only where no record can come from: after a response, before it, in its
# head and in its trailers.
POISON = "poison-of-another-response"
CONTEXT = "context-secret-of-a-customer"

_POISON_PAGE = json.dumps(
    {"result": [{"id": POISON, "name": POISON}], "next_cursor": None}
).encode()
_POISON_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (
    len(_POISON_PAGE),
    _POISON_PAGE,
)
_STATUSES = (201, 204, 206, 400, 402, 404, 408, 422, 429, 500, 502, 503, 504, 520, 999)
_HEADERS = (
    b"Content-Type: text/html",
    b"Connection: close",
    b"Content-Encoding: br",
    b"Content-Encoding: gzip, gzip, deflate",
    b"Set-Cookie: a=b",
    b"Location: http://127.0.0.1:9/",
    b"Transfer-Encoding: identity",
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Retry-After: 99999999999999999999",
    b"ratelimit-remaining: 0",
    b"X: " + POISON.encode(),
    b"X: " + b"y" * 70_000,
    b"no colon",
    b": no name",
    b" folded",
    b"X: \xff\x00",
)
_INTERIM = (b"100 Continue", b"102 Processing", b"103 Early Hints", b"199 x", b"101 Switching")


class FuzzServer(ThreadedServer):
    """Answer for accounts with a few records each, as described above.

    A response depends on the seed, on the request's target and on how often it was requested.

    Attributes:
        responses: How many responses were sent.
        bodies: What was sent for each account, before it was encoded.
    """

    def __init__(self, seed: int, accounts: Sequence[str], token: str) -> None:
        super().__init__()
        self.responses = 0
        self.bodies: defaultdict[str, list[bytes]] = defaultdict(list)
        self._seed, self._accounts, self._token = seed, accounts, token
        self._targets: Counter[str] = Counter()

    @override
    async def respond(self, head: bytes, writer: asyncio.StreamWriter) -> bool:
        self.responses += 1
        pieces, is_kept = self._pieces(head)
        for piece, pause in pieces:
            writer.write(piece)
            await writer.drain()
            if pause:
                await asyncio.sleep(pause)
        return is_kept

    def _pieces(self, head: bytes) -> tuple[list[tuple[bytes, float]], bool]:
        """Return the pieces to send, each with a pause, and whether to keep the connection."""
        target = head.split(b" ", 2)[1].decode()
        self._targets[target] += 1
        rng = random.Random(f"{self._seed} {target} {self._targets[target]}")
        kind, account_id = _of(target)
        body, status = self._body(kind, account_id, head, rng)
        self.bodies[account_id].append(body)
        content, excess = _framed(status, body, rng)
        how = _drawn(rng, stalled=0.2, dripping=0.3, split=10)
        pauses = {"stalled": [0.5], "dripping": [0.02] * 30, "split": [0.001]}.get(how, [])
        pieces = []
        for pause in pauses:
            at = rng.randrange(len(content) or 1)
            pieces.append((content[:at], pause))
            content = content[at:]
        # This comes with the last bytes: if it came later, no client could tell it from the next
        # response.
        return [*pieces, (content + excess, 0.0)], _happens(rng, 70)

    def _body(
        self, kind: str, account_id: str, head: bytes, rng: random.Random
    ) -> tuple[bytes, int]:
        """Return a body and its status."""
        records = [
            {"id": f"{account_id}:{number}", "name": account_id, "rank": number}
            for number in range(3)
        ]
        page: Any = {"result": records, "next_cursor": None}
        if kind == "account":
            page = _account_object(account_id)
        body, status = json.dumps(page).encode(), 200
        match _drawn(rng, mutated=15, cut=5, raw=3, other=2, odd=5, fatal=0.05, error=10, text=10):
            case "mutated":
                body = _mutated(body, rng)
            case "cut":
                body = body[: rng.randrange(len(body))]
            case "raw":
                body, status = rng.randbytes(rng.randrange(200)), rng.choice((200, *_STATUSES))
            case "other" if kind == "account":
                body = json.dumps(_account_object(rng.choice(self._accounts))).encode()
            case "odd":
                id_, value = json.dumps(account_id).encode(), rng.choice(_VALUES)
                entries = b'[{"id": %s}, %s]' % (value, value)
                body = b'{"id": %s, "result": %s, "next_cursor": null}' % (id_, entries)
            case "fatal" | "error" as kind_of_error:
                # A fatal error ends the whole sync.
                statuses = (301, 304, 401) if kind_of_error == "fatal" else _STATUSES
                status = rng.choice(statuses)
                body = _error(status, self._token, head, rng)
            case "text":
                text = rng.choice(
                    ("", "<html>", '{"message": "no"}', "[]", "null", '{"statusCode": 1}')
                )
                body = (text + rng.choice(("", head.decode("latin-1")))).encode()
                status = rng.choice(_STATUSES)
        return body, status


def _drawn(rng: random.Random, **percentages: float) -> str:
    """Draw a name by its percentage, or an empty text."""
    rest = 100.0 - sum(percentages.values())
    return rng.choices([*percentages, ""], [*percentages.values(), rest])[0]


def _happens(rng: random.Random, percentage: float) -> bool:
    return rng.random() * 100 < percentage


_VALUES = (
    *(b"[" * depth + b"]" * depth for depth in (300, 3_000)),
    *(b"7" * digits for digits in (30, 400, 5_000)),
    *(
        b"NaN",
        b"1e999",
        b'"\\ud800"',
        b'"\xff"',
        b'"\x00"',
        b"",
        b"01",
        b"true",
        b'"\\u0000"',
        b'" "',
    ),
)


def _of(target: str) -> tuple[str, str]:
    """Return the kind of a request, and the ID of its account."""
    parts = urlsplit(target)
    last = parts.path.rpartition("/")[2]
    if "/integrated-account/" in parts.path:
        return "account", last
    return last, parse_qs(parts.query)["integrated_account_id"][0]


def _account_object(account_id: str) -> dict[str, Any]:
    return {
        "id": account_id,
        "tenant_id": f"tenant of {account_id}",
        "status": "active",
        "integration": {"name": "klaviyo"},
        "context": {"api_key": CONTEXT},
    }


def _error(status: int, token: str, head: bytes, rng: random.Random) -> bytes:
    """Return an error in Truto's envelope, which can echo the request."""
    echo = rng.choice(("", token, f"Authorization: Bearer {token}", head.decode("latin-1")))
    error = {"statusCode": status, "error": "Error", "message": f"It failed: {echo}"}
    if _happens(rng, 50):
        error |= {"truto_is_remote_error": True, "raw_response": {"errors": [{"detail": echo}]}}
    return json.dumps(error).encode()


def _mutated(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 3, 10))):
        at, size = rng.randrange(len(content) + 1), rng.choice((1, 1, 4, 20))
        inserted = rng.choice(
            (b"", rng.randbytes(size), content[at : at + size], b'"', b"}", b"\0")
        )
        content = content[:at] + inserted + content[at + rng.choice((0, size)) :]
    return content


def _framed(status: int, body: bytes, rng: random.Random) -> tuple[bytes, bytes]:
    """Return the bytes of a response, mostly valid, and what follows it: sometimes poison."""
    headers: list[bytes] = []
    if _happens(rng, 20):
        name, encode = rng.choice(_ENCODINGS)
        headers.append(b"Content-Encoding: " + name)
        body = encode(body)
        if name != b"unknown" and _happens(rng, 30):
            # The checksum stays as it is.
            body = _mutated(body[:-8], rng) + body[-8:]
        elif _happens(rng, 10):
            body = body[:-5]
    framing = _drawn(rng, length=60, chunked=25, wrong=8)
    match framing:
        case "length":
            headers.append(b"Content-Length: %d" % len(body))
        case "chunked":
            headers.append(b"Transfer-Encoding: chunked")
            body = _chunked(body, rng)
        case "wrong":
            headers.append(b"Content-Length: %d" % max(0, len(body) + rng.choice((-9, -1, 1, 9))))
    if _happens(rng, 15):
        headers.insert(rng.randrange(len(headers) + 1), rng.choice(_HEADERS))
    head = b"HTTP/1.1 %d X\r\n%s\r\n\r\n" % (status, b"\r\n".join(headers))
    if _happens(rng, 5):
        head = _mutated(head, rng)
    for _ in range(rng.choice((1, 1, 2, 12)) if _happens(rng, 5) else 0):
        fields = rng.choice((b"", b"Content-Length: 5\r\n", b"X: y\r\n"))
        head = b"HTTP/1.1 %s\r\n%s\r\n%s" % (rng.choice(_INTERIM), fields, head)
    # Without a length, everything that arrives is the body.
    has_end = framing and body
    excess = (_POISON_RESPONSE, _POISON_PAGE, b"\r\n") if has_end and _happens(rng, 10) else (b"",)
    return head + body, rng.choice(excess)


_ENCODINGS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"gzip", gzip.compress),
    (b"gzip", lambda body: gzip.compress(body) + gzip.compress(b" ")),
    (b"deflate", zlib.compress),
    (b"deflate", lambda body: zlib.compress(body) + _POISON_PAGE),
    (b"gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
    (b"gzip", lambda body: body),
    (b"unknown", lambda body: body),
)


def _chunked(body: bytes, rng: random.Random) -> bytes:
    parts, is_broken = [], _happens(rng, 10)
    while body:
        size = rng.randrange(1, len(body) + 1)
        line = b"%x%s\r\n" % (size, rng.choice((b"", b"", b";x=y")))
        line = _mutated(line, rng) if is_broken and _happens(rng, 30) else line
        parts.append(b"%s%s\r\n" % (line, body[:size]))
        body = body[size:]
    trailers = rng.choice((b"", b"", b"X: " + POISON.encode() + b"\r\n", b"Content-Length: 1\r\n"))
    return b"".join([*parts, b"0\r\n", trailers, b"" if is_broken else b"\r\n"])
