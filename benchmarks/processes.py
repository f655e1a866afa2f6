"""Run a benchmark's processes: the measured command, and the server that it reads from."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import (
    DEFAULT_TOKEN,
    TRUTO_ACCOUNT_LIMIT,
    TRUTO_TOKEN_LIMIT,
    Sandbox,
    large_environment,
    protocol,
    vendors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from sandbox import Environment

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = "output.jsonl"
_LAUNCHER = Path(__file__).with_name("launcher.py")


class UnverifiedReadError(Exception):
    """The result of a command is wrong, so its figures are not kept."""


Figures = dict[str, float]
"""Measured values by name; times are in seconds."""


def run(command: Sequence[str | Path], folder: Path, exit_code: int = 0) -> Figures:
    """Run a command in a folder until it exits; its output goes into the file `OUTPUT` there.

    Returns:
        `started_at` since 1970, `seconds` from the start of its process to its end, `cpu_seconds`,
        and `peak_bytes`, its largest resident set.

    Raises:
        UnverifiedReadError: If it exits with another code, or not within half an hour.
    """
    errors = folder / "errors.txt"
    launcher = subprocess.Popen(
        [sys.executable, "-S", _LAUNCHER, OUTPUT, errors, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"},
        stdout=subprocess.PIPE,
    )
    try:
        printed, _ = launcher.communicate()
    except BaseException:
        launcher.terminate()
        launcher.wait()
        raise
    figures: Figures = json.loads(printed) if launcher.returncode == 0 else {}
    if (code := figures.pop("exit_code", None)) != exit_code:
        error = errors.read_text(errors="replace").rstrip().rpartition("\n")[2]
        raise UnverifiedReadError(f"{Path(command[0]).name} exited with {code}: {error[-1_000:]}")
    return figures


def write_inputs(
    folder: Path,
    url: str,
    ids: list[str],
    sync_mode: str = "full_refresh",
    streams: Sequence[str] = ("segments",),
    **config: Any,
) -> None:
    """Write `config.json` for some accounts, and a `catalog.json` that selects their streams.

    Every reader uses the fields of the configuration that it knows.
    """
    others = {"mode": "listed", "ids": ids[1:]} if ids[1:] else {"mode": "none"}
    content = {
        "token": DEFAULT_TOKEN,
        "api_url": url,
        "integrated_account_id": ids[0],
        "additional_accounts": others,
        "ids": ids,
        **config,
    }
    catalog = protocol.configured_catalog(protocol.streams(*streams), sync_mode)
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "catalog.json").write_text(json.dumps(catalog), encoding="utf-8")


@contextmanager
def server(serve: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """Run a server function in its own process; yield the connection to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(serve, theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def serve_sandbox(
    connection: Connection,
    create: Callable[[], Environment],
    change: Callable[[Environment, int], object] | None = None,
) -> None:
    """Serve an environment: send its address, then its counts whenever a message arrives.

    The counts are the `requests` since the last message, how many of them were `rate_limited` by a
    429, and when the first one arrived (`first_at`, since 1970). After each message, the
    environment is changed.
    """
    environment = create()
    with Sandbox(environment) as sandbox:
        connection.send(sandbox.url)
        for number in itertools.count(1):
            connection.recv()
            requests = sandbox.requests
            refused = [each for each in requests if each.status == HTTPStatus.TOO_MANY_REQUESTS]
            # The sandbox's times come from the monotonic clock.
            since = time.time() - time.monotonic()
            first_at = since + min((each.at for each in requests), default=0.0)
            sandbox.clear()
            if change:
                change(environment, number)
            counts = {"requests": len(requests), "rate_limited": len(refused)}
            connection.send({**counts, "first_at": first_at})


def limited_environment(
    accounts: int,
    segments: int,
    page_size: int | None,
    latency: float,
    *,
    all_vendors: bool = False,
) -> Environment:
    """Return an environment of many accounts with Truto's limits.

    `page_size` is the default page size of all accounts; None for each vendor's own. Beehiiv is
    left out by default: its accounts need several requests, for their workspaces.
    """
    environment = large_environment(
        accounts,
        segments,
        [name for name in vendors.VENDORS if all_vendors or name != "beehiiv"],
        page_size=page_size,
        latency=latency,
        token_limit=TRUTO_TOKEN_LIMIT,
        account_limit=TRUTO_ACCOUNT_LIMIT,
    )
    for account in environment.accounts:
        account.default_page_size = page_size
    return environment


def _serve(serve: Callable[..., None], *arguments: Any) -> None:
    # Ignore Ctrl-C: the benchmark gets it, too, and terminates its servers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(*arguments)
