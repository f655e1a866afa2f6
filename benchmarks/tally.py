"""Tells whether a read was whole: each record that there is came exactly once, and no other.

A process of its own, because the ids of a million records need memory, and the memory of whoever
measures counts as that of what it measures. Prints a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.large_account import ACCOUNT_ID, segment_id

if TYPE_CHECKING:
    from collections.abc import Iterable

_Key = tuple[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="what the reader printed")
    parser.add_argument("--records", type=int, help="records of the one large account")
    parser.add_argument("--accounts", type=Path, help="a file with the ids of each account")
    options = parser.parse_args()
    with options.output.open("rb") as lines:
        told = _tally(lines, _expected(options.records, options.accounts))
    json.dump(told, sys.stdout)
    return 0


def _expected(records: int | None, accounts: Path | None) -> Counter[_Key]:
    if accounts is None:
        return Counter((ACCOUNT_ID, segment_id(number)) for number in range(records or 0))
    described = json.loads(accounts.read_text())
    return Counter((account["id"], id_) for account in described for id_ in account["ids"])


def _tally(lines: Iterable[bytes], expected: Counter[_Key]) -> dict[str, int]:
    """How many records came, and how many are missing and too many."""
    came: Counter[_Key] = Counter()
    for line in lines:
        message = orjson.loads(line)
        if "checksum" in message:
            return _by_checksum(message, expected)
        if message["type"] == "RECORD":
            data = message["record"]["data"]
            # A reader of one account need not say which.
            came[data.get("integrated_account_id", ACCOUNT_ID), data["id"]] += 1
    return {
        "records": came.total(),
        "missing": (expected - came).total(),
        "extra": (came - expected).total(),
    }


def _by_checksum(counted: dict[str, Any], expected: Counter[_Key]) -> dict[str, int]:
    """The same of a reader that prints no records, but how many came and their checksum."""
    keys = expected.elements()
    checksum = sum(zlib.crc32(f"{account}/{id_}".encode()) for account, id_ in keys)
    records, wanted = counted["records"], expected.total()
    # The number is right, and some are not those that should have come: it is not known how many.
    wrong = int(records == wanted and counted["checksum"] != checksum)
    return {
        "records": records,
        "missing": max(wanted - records, wrong),
        "extra": max(records - wanted, wrong),
    }


if __name__ == "__main__":
    sys.exit(main())
