"""What the commands of this folder share: how they are called, and how they end."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import NoReturn


def positive(text: str) -> int:
    """A whole number from 1 up, as an option of the command line."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return number


def called(script: str) -> str:
    """The command as it was called, to stand beside its figures."""
    return shlex.join(["python", f"benchmarks/{script}", *sys.argv[1:]])


def end(number: int, _frame: object) -> NoReturn:
    """Ends on a signal by raising, so that servers and readers are ended on the way out."""
    raise SystemExit(128 + number)
