"""Serves one large account from pages that are ready-made, so that it never holds up a reader.

The sandbox makes its records when they are asked for; beside a fast reader it would be the slower
of the two. Here a page is a template of bytes in which only the ids and the cursor change.

Prints a line of JSON when it listens, and another when its standard input ends: when it is told to
stop, and also when whoever started it is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
import threading
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs, urlsplit

from benchmarks.large_account import ACCOUNT_ID, PAGE, PAGE_DIGITS, PLACE_DIGITS, segment_id
from sandbox import DEFAULT_TOKEN, Account, answers, vendors
from sandbox.meta import meta

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.answers import Answer

SEGMENTS = "/unified/marketing-automation/segments"

_TEMPLATES = 10
# Stand in the templates for the number of the page, and of the next one. Numbers are as long, so
# that the length in the head of the answer holds for every page.
_THIS, _NEXT = b"@" * PAGE_DIGITS, b"#" * PAGE_DIGITS
_MOST_RECORDS = PAGE * 10**PAGE_DIGITS
_END_OF_HEAD = b"\r\n\r\n"
_TARGET = re.compile(rb"GET (\S+) HTTP/1\.1\r\n")
_TOKEN = f"authorization: bearer {DEFAULT_TOKEN}\r\n".lower().encode()


class Pages:
    """The answers for one account.

    Args:
        records: How many segments it has, a multiple of those of a page.
    """

    def __init__(self, records: int) -> None:
        made = vendors.segments("klaviyo", _TEMPLATES * PAGE)
        self._templates = [_template(made[n * PAGE :][:PAGE]) for n in range(_TEMPLATES)]
        self._count = records // PAGE
        account = Account(ACCOUNT_ID, "klaviyo")
        self._one = _http(answers.ok(_envelope([{**made[0], "id": segment_id(0)}])))
        self._meta = _http(answers.ok(meta(account)))
        self._refused = _http(answers.truto_error(401, "Unauthorized"))
        self._unknown = _http(answers.truto_error(404, "Not found"))

    def answer(self, head: bytes) -> bytes:
        """The whole answer to a request, from its first line to its last byte."""
        if _TOKEN not in head.lower():
            return self._refused
        target = _TARGET.match(head)
        url = urlsplit(target[1].decode("ascii") if target else "")
        params = parse_qs(url.query)
        if params.get("integrated_account_id") != [ACCOUNT_ID]:
            return self._unknown
        if url.path == f"{SEGMENTS}/meta/list":
            return self._meta
        if url.path != SEGMENTS:
            return self._unknown
        # A check asks for one record.
        if params.get("limit") == ["1"]:
            return self._one
        cursor = params.get("next_cursor", [_cursor("0")])[0]
        return self._page(int(cursor.rpartition("_")[2]))

    def _page(self, number: int) -> bytes:
        whole = self._templates[number % _TEMPLATES].replace(_THIS, _digits(number))
        if number + 1 < self._count:
            return whole.replace(_NEXT, _digits(number + 1))
        cursor = f'"{_cursor(_NEXT.decode())}"'.encode()
        return whole.replace(cursor, b"null".rjust(len(cursor)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, required=True, help="segments of the account")
    records = parser.parse_args().records
    if records % PAGE or not 0 < records <= _MOST_RECORDS:
        parser.error(f"--records must be a multiple of {PAGE}, at most {_MOST_RECORDS:,}")
    # Ctrl-C is for whoever started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = asyncio.run(_serve(Pages(records)))
    _tell({"requests": requests})
    return 0


async def _serve(pages: Pages) -> int:
    """Answers until the standard input ends; returns how many requests came."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    requests = 0

    def answer(head: bytes) -> bytes:
        nonlocal requests
        requests += 1
        return pages.answer(head)

    def wait_for_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(over.set)

    server = await loop.create_server(lambda: _Connection(answer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _tell({"url": f"http://127.0.0.1:{port}", "token": DEFAULT_TOKEN, "account": ACCOUNT_ID})
    threading.Thread(target=wait_for_end, daemon=True).start()
    await over.wait()
    server.close()
    return requests


class _Connection(asyncio.Protocol):
    """One connection, kept open; its requests have a head and no body."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while _END_OF_HEAD in self._received and self._transport is not None:
            head, _, self._received = self._received.partition(_END_OF_HEAD)
            self._transport.write(self._answer(head + _END_OF_HEAD))


def _template(records: list[dict[str, object]]) -> bytes:
    """A page as it goes over the wire, with marks where its number and the next one stand."""
    this = _THIS.decode()
    numbered = [
        {**record, "id": f"segment-{this}{place:0{PLACE_DIGITS}}"}
        for place, record in enumerate(records)
    ]
    return _http(answers.ok(_envelope(numbered, _cursor(_NEXT.decode()))))


def _envelope(records: list[dict[str, object]], cursor: str | None = None) -> dict[str, object]:
    return {
        "result": records,
        "next_cursor": cursor,
        "prev_cursor": None,
        "result_count": len(records),
        "is_partial_response": False,
    }


def _http(answer: Answer) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} -\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}{_END_OF_HEAD.decode()}"
    )
    return head.encode() + answer.body


def _cursor(page: str) -> str:
    return f"page_{page}"


def _digits(number: int) -> bytes:
    return f"{number:0{PAGE_DIGITS}}".encode()


def _tell(what: dict[str, object]) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
