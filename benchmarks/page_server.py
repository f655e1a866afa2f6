"""Serve one large account from prepared pages, so that the server is never the bottleneck.

The sandbox creates its records on request, so it would be slower than a fast reader. Here a page is
a template of bytes, and only the ids and the cursor are replaced.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

from aiohttp import web

from benchmarks.large_account import ACCOUNT_ID, PAGE_SIZE, segment_id
from sandbox import vendors

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SEGMENTS_PATH = "/unified/marketing-automation/segments"
_TEMPLATES = 10
# Placeholders: the page's digits in an id, and the next cursor with its quotation marks.
_PAGE, _NEXT_CURSOR = b"@@@@@", b'"@next@"'


class Pages:
    """The responses for an account with `records` records, a multiple of the page size."""

    def __init__(self, records: int) -> None:
        segments = vendors.segments("klaviyo", _TEMPLATES * PAGE_SIZE)
        starts = range(0, len(segments), PAGE_SIZE)
        self._templates = [_template(segments[start : start + PAGE_SIZE]) for start in starts]
        self._last = records // PAGE_SIZE - 1

    async def respond(self, request: web.BaseRequest) -> web.Response:
        """Return the requested page; 404 for anything else."""
        account_id = request.query.get("integrated_account_id")
        if (request.path, account_id) != (SEGMENTS_PATH, ACCOUNT_ID):
            return web.json_response({"message": "Not found"}, status=404)
        page = self.page(int(request.query.get("next_cursor", "0")))
        return web.Response(body=page, content_type="application/json")

    def page(self, index: int) -> bytes:
        """Return the body of a page; its cursor is the index of the next one."""
        next_cursor = b"null" if index == self._last else b'"%d"' % (index + 1)
        page = self._templates[index % _TEMPLATES].replace(_PAGE, b"%05d" % index)
        return page.replace(_NEXT_CURSOR, next_cursor)


def serve(connection: Connection, records: int) -> None:
    """Send the address, and serve until the other end closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection.send(f"http://127.0.0.1:{listener.getsockname()[1]}")  # ignore-https-check
        asyncio.run(_serve(listener, Pages(records), connection.fileno()))


async def _serve(listener: socket.socket, pages: Pages, connection: int) -> None:
    loop, closed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection, closed.set)
    await loop.create_server(web.Server(pages.respond, access_log=None), sock=listener)
    await closed.wait()


def _template(segments: list[dict[str, Any]]) -> bytes:
    """Return a page of segments with the placeholders."""
    page = {
        "result": [{**row, "id": segment_id(index)} for index, row in enumerate(segments)],
        "next_cursor": json.loads(_NEXT_CURSOR),
        "prev_cursor": None,
        "result_count": len(segments),
        "is_partial_response": False,
    }
    # In the ids of the first page, the digits for the page are zeros.
    return json.dumps(page).encode().replace(b"segment-00000", b"segment-" + _PAGE)
