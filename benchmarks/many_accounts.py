"""Measures reads of many accounts, and writes the figures into benchmarks/README.md.

python benchmarks/many_accounts.py
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
# Python puts the folder of a script there, not the root that its imports begin at.
sys.path.insert(0, str(ROOT))

from benchmarks import report  # noqa: E402
from benchmarks.command import called, end, positive  # noqa: E402
from benchmarks.markdown import machine  # noqa: E402
from benchmarks.measure import measure, start_up_seconds  # noqa: E402
from benchmarks.processes import NotWholeError  # noqa: E402
from benchmarks.scenarios import VENDOR_WAIT_SECONDS, scenarios  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.scenarios import Scenario

README = ROOT / "benchmarks" / "README.md"
_ACCOUNTS = 1_000
_QUICK_ACCOUNTS = 100
_QUICK_WAIT_SECONDS = 5.0


def main() -> int:
    signal.signal(signal.SIGTERM, end)
    options = _options()
    wait = _QUICK_WAIT_SECONDS if options.quick else VENDOR_WAIT_SECONDS
    chosen = [
        scenario
        for scenario in scenarios(options.accounts, wait)
        if not options.only or scenario.name in options.only
    ]
    load = os.getloadavg()[0]
    began = datetime.now(timezone.utc)
    try:
        command = called("many_accounts.py")
        tables = _measured(chosen, [f"{began:%Y-%m-%d}", *machine(), f"`{command}`"], load)
    except NotWholeError as failure:
        sys.stderr.write(f"many_accounts: {failure} No figures are written.\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("many_accounts: interrupted. No figures are written.\n")
        return 130
    print(f"\n{tables}\n")
    if options.quick or options.only or options.accounts != _ACCOUNTS:
        print("README.md keeps the figures of the last full run; this was not one.")
    else:
        report.write(README, tables)
        print(f"Written into {README.relative_to(ROOT)}.")
    return 0


def _measured(chosen: list[Scenario], heading: list[str], load: float) -> str:
    start_up = start_up_seconds()
    print(f"start-up: {start_up:.1f} s", flush=True)
    results = []
    for scenario in chosen:
        figures = measure(scenario)
        print(
            f"{scenario.name:>3}  {scenario.what}, {scenario.accounts:,} accounts: "
            f"{figures.seconds:.1f} s, requests: {figures.requests:,}",
            flush=True,
        )
        results.append((scenario, figures))
    loads = f"load average {load:.1f} before the run, {os.getloadavg()[0]:.1f} after it"
    return report.report(results, start_up, [*heading, loads])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures reads of many accounts.")
    parser.add_argument(
        "--accounts",
        type=positive,
        help=f"accounts of most scenarios (default: {_ACCOUNTS:,}); one has five times as many",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{_QUICK_ACCOUNTS} accounts and short waits: to see that everything runs",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="SCENARIO",
        choices=[scenario.name for scenario in scenarios(_ACCOUNTS)],
        help="only these scenarios, such as 1 or 4b",
    )
    options = parser.parse_args()
    options.accounts = options.accounts or (_QUICK_ACCOUNTS if options.quick else _ACCOUNTS)
    return options


if __name__ == "__main__":
    sys.exit(main())
