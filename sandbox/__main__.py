"""The sandbox from the command line: `python -m sandbox`."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sandbox.environment import DEFAULT_TOKEN, Account, Environment
from sandbox.limits import TRUTO_ACCOUNT_LIMIT, TRUTO_TOKEN_LIMIT
from sandbox.presets import BREAKS, break_account, demo_environment, large_environment
from sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

_MAX_TABLE_ROWS = 10
_DEFAULT_SEGMENTS = 10
_POLL_INTERVAL = 0.2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sandbox: {message}\n")


class _UsageError(Exception):
    """Options that are valid, but do not match each other or the accounts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit code."""
    options = _options(arguments)
    try:
        environment = _environment(options)
    except _UsageError as wrong:
        sys.stderr.write(f"sandbox: {wrong}\n")
        sys.exit(2)
    signals: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    sandbox = Sandbox(environment, options.host, options.port)
    try:
        sandbox.start()
    except OSError as failure:
        where = f"{options.host}:{options.port}"
        sys.stderr.write(f"sandbox: cannot listen on {where}: {_reason(failure)}\n")
        return 1
    try:
        if options.config is not None and (failed := _write_config(options.config, sandbox)):
            sys.stderr.write(failed)
            return 1
        lines = _as_json(sandbox) if options.json else _as_table(sandbox)
        sys.stdout.write(lines)
        sys.stdout.flush()
        # Poll, because a signal that arrives just before an endless wait would not end it.
        while not signals:
            time.sleep(_POLL_INTERVAL)
    finally:
        sandbox.stop()
    # With --json, a program reads standard output, which must have only its one line.
    (sys.stderr if options.json else sys.stdout).write("Stopped.\n")
    return 0


def _write_config(path: Path, sandbox: Sandbox) -> str:
    """Write the connector's configuration; return a sentence if that is not possible."""
    try:
        path.write_text(json.dumps(sandbox.config) + "\n", encoding="utf-8")
    except OSError as failure:
        return f"sandbox: cannot write {path}: {_reason(failure)}\n"
    return ""


def _reason(failure: OSError) -> str:
    # Use the system's message, because asyncio wraps it in a sentence about the address. Errors of
    # name resolution have negative numbers, and the system has no message for them.
    if failure.errno is not None and failure.errno > 0:
        return os.strerror(failure.errno)
    return failure.strerror or str(failure)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m sandbox",
        description="A local Truto API with made-up segments of seven vendors.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument(
        "--port", type=_PORT, default=0, help="port to listen on (default: a free one)"
    )
    parser.add_argument("--token", default=DEFAULT_TOKEN, help="API token to accept")
    parser.add_argument(
        "--accounts",
        type=_COUNT,
        help="number of accounts, of mixed vendors (default: the demo, one of each vendor)",
    )
    parser.add_argument(
        "--segments",
        type=_COUNT,
        help=f"segments of each account, with --accounts (default: {_DEFAULT_SEGMENTS})",
    )
    parser.add_argument("--latency", type=_SECONDS, default=0.0, help="seconds before a response")
    parser.add_argument(
        "--break",
        dest="broken",
        metavar="ACCOUNT=HOW",
        type=_BREAK,
        action="append",
        default=[],
        help="break the account with this id, or all of this vendor; "
        f"HOW is one of {', '.join(BREAKS)}",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="also write the connector's configuration to this file",
    )
    parser.add_argument("--limits", action="store_true", help="enforce Truto's rate limits")
    parser.add_argument(
        "--json", action="store_true", help="print the description as one line of JSON"
    )
    options = parser.parse_args(arguments)
    if options.segments is not None and options.accounts is None:
        parser.error("argument --segments: requires --accounts")
    return options


def _environment(options: argparse.Namespace) -> Environment:
    if options.accounts is None:
        environment = demo_environment()
    else:
        environment = large_environment(options.accounts, options.segments or _DEFAULT_SEGMENTS)
    for name, how in options.broken:
        found = [
            account for account in environment.accounts if name in (account.id, account.vendor)
        ]
        for account in found:
            break_account(account, how)
        if not found:
            raise _UsageError(f"argument --break: there is no account {name!r}")
    environment.token = options.token
    environment.latency = options.latency
    if options.limits:
        environment.token_limit = TRUTO_TOKEN_LIMIT
        environment.account_limit = TRUTO_ACCOUNT_LIMIT
    return environment


def _number(
    convert: Callable[[str], float], lowest: float, highest: float, description: str
) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = convert(text)
        except ValueError:
            number = math.nan
        if not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not {description}")
        return number

    return parse


def _BREAK(text: str) -> tuple[str, str]:  # noqa: N802 - a type of an option, like those below
    name, _, how = text.rpartition("=")
    if not name or how not in BREAKS:
        ways = ", ".join(BREAKS)
        raise argparse.ArgumentTypeError(f"{text!r} is not ACCOUNT=HOW, with HOW one of {ways}")
    return name, how


_PORT = _number(int, 0, 65_535, "a port number from 0 to 65535")
_COUNT = _number(int, 1, sys.maxsize, "a whole number above 0")
_SECONDS = _number(float, 0, sys.float_info.max, "a number of seconds, 0 or more")


def _as_json(sandbox: Sandbox) -> str:
    description = {
        "url": sandbox.url,
        "token": sandbox.environment.token,
        "config": sandbox.config,
        "accounts": [
            {
                "id": account.id,
                "vendor": account.vendor,
                "tenant_id": account.tenant_id,
                "status": account.status,
                "segments": _count(account),
            }
            for account in sandbox.environment.accounts
        ],
    }
    return json.dumps(description) + "\n"


def _as_table(sandbox: Sandbox) -> str:
    accounts = sandbox.environment.accounts
    lines = [f"url    {sandbox.url}", f"token  {sandbox.environment.token}", ""]
    lines.append(f"{'vendor':<15} {'id':<36} {'segments':>8}  status")
    lines += [
        f"{account.vendor:<15} {account.id:<36} {_count(account):>8}  {account.status}"
        for account in accounts[:_MAX_TABLE_ROWS]
    ]
    if len(accounts) > _MAX_TABLE_ROWS:
        lines.append(f"… and {len(accounts) - _MAX_TABLE_ROWS} more")
    lines += ["", f"config.json: {json.dumps(sandbox.config)}"]
    lines += ["", "Stop with Ctrl-C."]
    return "\n".join(lines) + "\n"


def _count(account: Account) -> int:
    return len(account.segments) + sum(map(len, account.workspaces.values()))


if __name__ == "__main__":
    sys.exit(main())
