"""Helpers that the scripts share."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sandbox import vendors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sandbox import Account

CONNECTOR = "source-truto-segments"
PROGRAM = Path(sys.executable).with_name(CONNECTOR)
"""The command beside the environment's Python; a resolved link would lead out of it."""


def say(text: str) -> None:
    print(text, flush=True)


class ScriptError(Exception):
    """A failure that ends a script; its message is a sentence."""


def run_script(main: Callable[[], None], *failures: type[Exception]) -> int:
    """Run a script and return its exit code.

    Args:
        main: The script.
        failures: Exceptions to report by their message, in addition to `ScriptError`.
    """
    # Raise on these signals, so that temporary folders and servers are cleaned up as well.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    # The sandbox runs on this machine, so it needs no proxy.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    reported: tuple[type[Exception], ...] = (ScriptError, *failures)
    try:
        main()
    except reported as failure:
        say(f"\nFAILED. {failure}")
        return 1
    except KeyboardInterrupt:
        say("\nInterrupted.")
        return 130
    return 0


def _exit(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def segments_of(account: Account) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """Yield the segments of an account in the sandbox, each with its workspace's ID."""
    yield from ((None, segment) for segment in account.segments)
    for workspace_id, segments in account.workspaces.items():
        yield from ((workspace_id, segment) for segment in segments)


def rename(account: Account, index: int, **fields: Any) -> None:
    """Rename a segment, and change other fields of it."""
    segments = list(account.segments)
    segments[index] = {**segments[index], "name": f"{segments[index]['name']} (renamed)", **fields}
    account.segments = segments


def add(account: Account) -> None:
    """Add a segment at the end."""
    segments = account.segments
    added = {**vendors.SegmentSequence(account.vendor, 1_000)[-1], "name": "Added since"}
    account.segments = [*segments, added]


def delete(account: Account, index: int) -> None:
    account.segments = [*account.segments[:index], *account.segments[index + 1 :]]
