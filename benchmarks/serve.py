"""Serves the accounts of one scenario, and says at the end which requests came.

Prints a line of JSON when it listens, and another when its standard input ends: when it is told to
stop, and also when whoever started it is gone.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING

from sandbox import Sandbox, faults, large_environment
from sandbox.environment import BEEHIIV
from sandbox.limits import TRUTO_ACCOUNT_LIMIT, TRUTO_TOKEN_LIMIT
from sandbox.vendors import VENDORS

if TYPE_CHECKING:
    from sandbox import Account, Environment

# The fate of an account: what a read of it has to come to.
WHOLE, BROKEN, WAITING = "whole", "broken", "waiting"


def main() -> int:
    options = _options()
    # Ctrl-C is for whoever started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    environment = _environment(options)
    fates = _spoil(environment.accounts, options.trouble, options.wait)
    with Sandbox(environment) as sandbox:
        _tell(
            {
                "url": sandbox.url,
                "token": environment.token,
                "accounts": [
                    {"id": account.id, "fate": fates.get(account.id, WHOLE), "ids": _ids(account)}
                    for account in environment.accounts
                ],
            }
        )
        sys.stdin.read()
        requests = sandbox.requests
    _tell(
        {
            "requests": len(requests),
            "statuses": Counter(str(request.status) for request in requests),
            "kinds": Counter(request.kind for request in requests),
        }
    )
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, required=True, help="how many accounts")
    parser.add_argument("--segments", type=int, required=True, help="segments of each account")
    parser.add_argument("--page-size", type=int, help="segments of a page (default: all of them)")
    parser.add_argument("--latency", type=float, required=True, help="seconds before an answer")
    parser.add_argument("--all-vendors", action="store_true", help="Beehiiv's accounts as well")
    parser.add_argument(
        "--trouble",
        choices=(BROKEN, WAITING),
        help=f"{BROKEN}: 3 of 100 cannot be read; {WAITING}: 3 of 20 meet their vendor's limit",
    )
    parser.add_argument("--wait", type=float, default=0.0, help="seconds of the vendor's limit")
    return parser.parse_args()


def _environment(options: argparse.Namespace) -> Environment:
    # An account of Beehiiv's needs three requests: one refused for want of a workspace, one for
    # the list of them, one for the segments. The others need one.
    vendors = [name for name in VENDORS if options.all_vendors or name != BEEHIIV]
    return large_environment(
        options.accounts,
        options.segments,
        vendors,
        page_size=options.page_size,
        latency=options.latency,
        token_limit=TRUTO_TOKEN_LIMIT,
        account_limit=TRUTO_ACCOUNT_LIMIT,
    )


def _spoil(accounts: list[Account], trouble: str | None, wait: float) -> dict[str, str]:
    """Makes some accounts fail or wait, never the first; returns the fates of those."""
    if trouble == BROKEN:
        disconnected, forbidden, failing = (accounts[place::100] for place in (33, 66, 99))
        for account in disconnected:
            account.status = "needs_reauth"
        for account in forbidden:
            account.faults.append(faults.scopes_missing(times=None))
        for account in failing:
            account.faults.append(faults.vendor_failed(times=None))
        return {account.id: BROKEN for account in (*disconnected, *forbidden, *failing)}
    if trouble == WAITING:
        waiting = [account for place in (5, 11, 17) for account in accounts[place::20]]
        for account in waiting:
            account.faults.append(faults.vendor_rate_limited(wait))
        return {account.id: WAITING for account in waiting}
    return {}


def _ids(account: Account) -> list[str]:
    """The ids of all segments of an account, as the connector emits them."""
    lists = [account.segments, *account.workspaces.values()]
    return [str(record["id"]) for records in lists for record in records]


def _tell(what: dict[str, object]) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
