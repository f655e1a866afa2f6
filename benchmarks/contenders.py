"""Compares this connector with what users would pick instead.

python benchmarks/contenders.py

Each work is written into contenders.json; the tables in README.md and the picture contenders.svg
are made from that file.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
# Python puts the folder of a script there, not the root that its imports begin at.
sys.path.insert(0, str(ROOT))

from benchmarks import figures, sdk, tables  # noqa: E402
from benchmarks.command import called, end, positive  # noqa: E402
from benchmarks.markdown import machine, write_between  # noqa: E402
from benchmarks.processes import NotWholeError  # noqa: E402
from benchmarks.works import WORKS, Setting  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.figures import Work

FOLDER = ROOT / "benchmarks"
FIGURES = FOLDER / "contenders.json"
README = FOLDER / "README.md"
BEGIN = "<!-- figures: written by contenders.py -->"
END = "<!-- end of figures of contenders.py -->"
INSTALL = ".venv/bin/pip install -e '.[benchmarks]'"

_ROUNDS = {"a": 3, "b": 2, "c": 5, "d": 1}


def main() -> int:
    signal.signal(signal.SIGTERM, end)
    options = _options()
    if not options.quick and importlib.util.find_spec("matplotlib") is None:
        return _fail(f"The picture needs matplotlib. Install it by {INSTALL}", 2)
    try:
        if not options.draw:
            _measure(options)
        if not options.quick:
            _write()
    except NotWholeError as failure:
        return _fail(f"{failure} No figures of this work are written.", 1)
    except KeyboardInterrupt:
        return _fail("interrupted. The figures of the work at hand are not written.", 130)
    return 0


def _measure(options: argparse.Namespace) -> None:
    """Measures the chosen works; keeps each as soon as it is over."""
    setting = _setting(options)
    for letter in options.only:
        rounds = 1 if options.quick else options.rounds or _ROUNDS[letter]
        load = os.getloadavg()[0]
        began = datetime.now(timezone.utc)
        work = WORKS[letter](setting, rounds)
        loads = f"load average {load:.1f} before and {os.getloadavg()[0]:.1f} after"
        command = called("contenders.py")
        work.heading = ", ".join([f"{began:%Y-%m-%d}", *machine(), loads, f"`{command}`"])
        print(f"\n{tables.of(letter, work)}\n", flush=True)
        if not options.quick:
            figures.save(FIGURES, {**figures.load(FIGURES), letter: work})
    if options.quick:
        print("These sizes are too small for the targets, and nothing is written.")


def _setting(options: argparse.Namespace) -> Setting:
    python, reason = None, ""
    try:
        python = sdk.prepare(options.sdk_python)
    except sdk.NoSdkError as why:
        reason = str(why)
        if options.sdk_python:
            raise NotWholeError(f"--sdk-python cannot be used: {reason}.") from None
        print(f"truto-python-sdk is not measured: {reason}. --sdk-python names one.", flush=True)
    if options.quick:
        return Setting(python, reason, records=5_000, accounts=8, sizes=(1_000, 2_000))
    return Setting(python, reason)


def _write() -> None:
    """Makes the tables and the picture from the kept figures."""
    kept: dict[str, Work] = figures.load(FIGURES)
    if not kept:
        return
    write_between(README, BEGIN, END, tables.report(kept))
    # A process of its own: whoever measures is not to hold a library for pictures.
    subprocess.run([sys.executable, "-m", "benchmarks.picture"], cwd=ROOT, check=True)
    print("Written: contenders.json, contenders.svg and README.md in benchmarks/.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compares this connector with what users would pick instead."
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="WORK",
        choices=list(WORKS),
        default=list(WORKS),
        help="only these works: a (one account), b (many), c (start-up), d (memory)",
    )
    parser.add_argument("--rounds", type=positive, help="rounds of each work (default: 3 2 5 1)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes and one round, to see that everything works; writes nothing",
    )
    parser.add_argument(
        "--draw",
        action="store_true",
        help="measures nothing; makes the tables and the picture from contenders.json again",
    )
    parser.add_argument(
        "--sdk-python", help="a Python from 3.12 up for truto-python-sdk (default: looks for one)"
    )
    return parser.parse_args()


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"contenders: {sentence}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
