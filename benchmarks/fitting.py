"""What it costs to make records fit their columns, by itself; prints a line of JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from sandbox import vendors
from source_truto_segments.records import Columns, fit

if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDS = 5
_RECORDS_A_VENDOR = 2_000


def main() -> int:
    columns = Columns.of({})
    json.dump(
        {
            "copied records a second": _a_second(dict),
            "fitted records a second": _a_second(lambda record: fit(record, columns)),
        },
        sys.stdout,
    )
    return 0


def _a_second(step: Callable[[dict[str, Any]], object]) -> float:
    vendors_records = (vendors.segments(name, _RECORDS_A_VENDOR) for name in vendors.VENDORS)
    records = [record for of_vendor in vendors_records for record in of_vendor]
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for record in records:
            step(record)
        times.append(time.perf_counter() - began)
    return len(records) / statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
