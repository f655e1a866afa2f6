"""Fetch and count all segments, as a user of `truto-python-sdk` would.

The SDK only returns Python objects: no RECORD lines, no state, no columns. If a limit refuses a
request, the SDK raises an exception of its HTTP library, so this script does the waiting. It prints
a line of JSON with the number of records and the sum of the checksums of their ids, which shows
whether they were the right ones. A set of the ids would count as the SDK's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import aiohttp
from truto_python_sdk import TrutoApi

_TOO_MANY_REQUESTS = 429


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=1, help="accounts at the same time")
    options = parser.parse_args()
    config = json.loads(options.config.read_text())
    api = TrutoApi(config["token"], config["api_url"])
    slots = asyncio.Semaphore(options.concurrency)

    async def read(account_id: str) -> tuple[int, int]:
        async with slots:
            return await _read(api, account_id)

    # The SDK reads one list; reading several concurrently is up to its user.
    found = await asyncio.gather(*map(read, config["ids"]))
    counted = {
        "records": sum(records for records, _ in found),
        "checksum": sum(checksum for _, checksum in found),
    }
    sys.stdout.write(f"{json.dumps(counted)}\n")


async def _read(api: Any, account_id: str) -> tuple[int, int]:
    """Return the number of an account's records, and the sum of the checksums of their ids."""
    params = {"integrated_account_id": account_id}
    segments = api.unified_api.list("marketing-automation", "segments", params)
    records, checksum = 0, 0
    while True:
        try:
            # After a failure, the list continues with the page that failed.
            async for record in segments:
                records += 1
                checksum += zlib.crc32(f"{account_id}/{record['id']}".encode())
        except aiohttp.ClientResponseError as failure:  # noqa: PERF203 - to go on after it
            if failure.status != _TOO_MANY_REQUESTS or failure.headers is None:
                raise
            await asyncio.sleep(float(failure.headers["Retry-After"]))
        else:
            return records, checksum


if __name__ == "__main__":
    asyncio.run(main())
