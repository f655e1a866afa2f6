"""The command that checks the live API or the sandbox, and writes a report."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
import textwrap
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from live_checks.account import Account
from live_checks.api import MAX_REQUESTS, PAUSE, TRUTO, Api, NoAnswerError
from live_checks.checks import FACTS
from live_checks.facts import Outcome
from live_checks.report import WIDTH, markdown, summary, table
from sandbox import Sandbox, demo_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from live_checks.report import Results

TOKEN = "TRUTO_TOKEN"  # noqa: S105 - the name of the variable
ACCOUNT = "TRUTO_INTEGRATED_ACCOUNT_ID"
URL = "TRUTO_API_URL"
TRUTO_URL = "https://api.truto.one"
SANDBOX = "the sandbox, and not Truto"
FILE = Path("live_check.md")
# Exit codes.
SAME, DIFFERENT, NOT_CHECKED, INTERRUPTED = 0, 1, 2, 130

_VERSION = Path(__file__).parent.parent / "source_truto_segments" / "VERSION"
_UNAUTHORIZED, _NOT_FOUND = 401, 404


class SetUpError(Exception):
    """A reason why the check cannot run; its text says what to do."""


class Target(NamedTuple):
    """The API and the account to check."""

    url: str
    token: str
    account_id: str


def main(variables: Mapping[str, str] = os.environ, pause: float = PAUSE) -> int:
    """Check every fact, print the table and write the file; return the exit code."""
    try:
        target = read_target(variables)
        if target is not None:
            where = "Truto" if target.url == TRUTO_URL else f"the address in {URL}"
            return _check(target, where, pause)
        say(
            f"{TOKEN} and {ACCOUNT} are not set, so this checks the sandbox, a server on this "
            "machine with made-up accounts. This shows nothing about Truto; to check it, set both."
        )
        with Sandbox(demo_environment()) as sandbox:
            environment = sandbox.environment
            target = Target(sandbox.url, environment.token, environment.accounts[0].id)
            return _check(target, SANDBOX, pause=0)
    except (SetUpError, NoAnswerError) as failure:
        say(f"\nNothing was checked. {failure}")
        return NOT_CHECKED
    except KeyboardInterrupt:
        say("\nInterrupted. Run it again; it changes nothing.")
        return INTERRUPTED


def say(text: str) -> None:
    """Print a text within the width of the table."""
    print("\n".join(textwrap.fill(line, WIDTH) for line in text.split("\n")), flush=True)


def read_target(variables: Mapping[str, str]) -> Target | None:
    """Return the target in the environment variables; None for the sandbox.

    Raises:
        SetUpError: If one of them is missing or not valid.
    """
    token, account_id, url = (variables.get(name, "").strip() for name in (TOKEN, ACCOUNT, URL))
    if not token and not account_id and not url:
        return None
    missing = [name for name, value in ((TOKEN, token), (ACCOUNT, account_id)) if not value]
    if missing:
        raise SetUpError(
            f"{' and '.join(missing)} must be set, too. To check Truto, set {TOKEN} and {ACCOUNT}; "
            f"to check the sandbox, unset {TOKEN}, {ACCOUNT} and {URL}."
        )
    token = re.sub(r"^bearer\s+", "", token, flags=re.IGNORECASE)
    if not re.fullmatch(r"[!-~]+", token):
        raise SetUpError(
            f"{TOKEN} contains characters that no token has, such as spaces. Copy it again from "
            "Truto."
        )
    try:
        account_id = str(uuid.UUID(account_id))
    except ValueError:
        raise SetUpError(
            f"{ACCOUNT} must be a UUID, such as 62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65. Copy it from "
            "Truto's list of integrated accounts."
        ) from None
    return Target(_checked_url(url or TRUTO_URL), token, account_id)


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or not re.fullmatch(r"https?://[^\s\\?#@]+", url):
        raise SetUpError(
            f"{URL} must be an address such as {TRUTO_URL}, without user, query and fragment. "
            "Correct it, or unset it to check Truto."
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise SetUpError(
            f"{URL} must begin with https, as the token would be sent unencrypted; only this "
            "machine itself, such as 127.0.0.1, can be reached over http."
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(target: Target, where: str, pause: float) -> int:
    account = Account(Api(target.url, target.token, pause), target.account_id)
    say(f"Asking {where}: at most {MAX_REQUESTS} GET requests within three minutes.")
    begin(account)
    results = see_all(account)
    version = _VERSION.read_text(encoding="utf-8").strip()
    integration = account.integration if account.vendor else "an integration other than the seven"
    heading = [
        f"Asked: {where}, an account of {integration}, with {account.api.count} requests.",
        f"Connector {version}, {datetime.now(timezone.utc):%Y-%m-%d}. {summary(results)}",
    ]
    print(f"\n{table(results)}\n")
    say(summary(results))
    try:
        FILE.write_text(markdown(results, heading), encoding="utf-8")
    except OSError as failure:
        say(f"{FILE} could not be written ({failure.strerror}); the table above has the same.")
    else:
        attach = "" if where == SANDBOX else ": please attach it to an issue"
        say(f"{FILE} has the same, without any customer's data{attach}.")
    differs = any(seen.outcome is Outcome.DIFFERS for _, seen in results)
    return DIFFERENT if differs else SAME


def begin(account: Account) -> None:
    """Request the account, because nothing can be checked without it.

    Raises:
        SetUpError: If Truto refuses the token or the account, or this is not a Truto API.
        NoAnswerError: If there is no response.
    """
    answer = account.entry
    if not answer.good and answer.speaker != TRUTO:
        raise SetUpError(
            f"The first response was {answer}, which is not how Truto responds. Check {URL} if it "
            "is set, and the proxy or firewall on the way."
        )
    if answer.status == _UNAUTHORIZED:
        raise SetUpError(
            "Truto rejected the token (401). Create an API token in the account's environment and "
            f"set {TOKEN} to it."
        )
    if answer.status == _NOT_FOUND:
        raise SetUpError(
            f"Truto has no such account (404). Check {ACCOUNT}, that the token belongs to the "
            f"account's environment, and {URL} if it is set."
        )


def see_all(account: Account) -> Results:
    """Check every fact, and show the progress: in a terminal, on one line."""
    results = []
    for number, fact in enumerate(FACTS, 1):
        results.append((fact, fact.see(account)))
        text = f"{number} of {len(FACTS)} facts, {account.api.count} requests"
        if sys.stdout.isatty():
            print(f"\r{text}", end="" if number < len(FACTS) else "\n", flush=True)
        elif number % 10 == 0 or number == len(FACTS):
            say(text)
    return results


if __name__ == "__main__":
    sys.exit(main())
