"""Measure reads of many accounts.

python benchmarks/many_accounts.py

many_accounts.json keeps the figures of each workload. The tables in README.md are generated from
it.
"""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

ROOT = Path(__file__).resolve().parent.parent
# Python adds the script's folder, but the imports below start from the root.
sys.path.insert(0, str(ROOT))

from benchmarks import processes, report  # noqa: E402
from benchmarks.processes import Figures, UnverifiedReadError  # noqa: E402
from benchmarks.verify import Output  # noqa: E402
from sandbox import TRUTO_TOKEN_LIMIT, faults, protocol  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchmarks.verify import Key
    from sandbox import Account, Environment, Request

_CONNECTOR = Path(sysconfig.get_path("scripts")) / "source-truto-segments"
_READ = (_CONNECTOR, "read", "--config", "config.json", "--catalog", "catalog.json")
_FIGURES = "many_accounts.json"
# Not 10: a list that ends with a usual default page size is read twice.
_SEGMENTS = 12
_SHARDS = 5
_STREAMS = ("segments", "integrated_accounts", "workspaces")
# Between two syncs, one of each hundred accounts gets three changes.
_CHANGED_EVERY = 100
# Which accounts of each hundred fail and how, and which of each twenty reach their vendor's limit.
_ERRORS = {33: faults.credentials_refused, 66: faults.scopes_missing, 99: faults.vendor_failed}
_RATE_LIMITED = (5, 11, 17)
_AT_LIMIT = 20
# --quick divides the numbers of accounts by this.
_QUICK = 20
_MAX_REQUESTS_OF_SEVEN = 15
_MAX_BYTES, _MAX_STATE_SHARE, _MAX_REQUESTS_OF_WRONG_TOKEN, _MAX_BOUNDS = 250e6, 0.1, 5, 1.6
_MAX_BYTES_OF_BIG_PAGES, _MAX_BOUNDS_OF_HEALTHY = 450e6, 1.5


@dataclass(frozen=True)
class Workload:
    """One read of many accounts.

    Attributes:
        title: The description in the table.
        accounts: How many accounts the sandbox has.
        latency: Seconds before each response that comes from a vendor.
        mode: Whether the connector finds the accounts, or its configuration lists them.
        num_workers: At most so many accounts are read concurrently; None for the default.
        sync_mode: The sync mode of the catalog.
        all_vendors: Whether Beehiiv is among the vendors.
        fault: What happens to some accounts. "error": every request of some fails. "rate limit":
            some reach their vendor's limit. "throttled": the vendors throttle the first three
            quarters, with 429s that ask to wait for a second. "at limit": one reaches Truto's limit
            for an account.
        wait: How long the limit lasts, in seconds.
        page_bytes: The approximate bytes of a page; None for the size of ordinary segments.
        wrong_token: Whether Truto rejects the token.
        segments: Segments of each account.
        own_pages: Whether the default page size is each vendor's own; otherwise, one page has all
            segments.
        shards: How many processes read at the same time, one shard each.
        syncs: How many syncs of all streams follow each other, with changes in between.
    """

    title: str
    accounts: int = 1_000
    latency: float = 0.3
    mode: Literal["all", "listed"] = "all"
    num_workers: int | None = None
    sync_mode: Literal["full_refresh", "incremental"] = "full_refresh"
    all_vendors: bool = False
    fault: Literal["error", "rate limit", "throttled", "at limit"] | None = None
    wait: float = 20.0
    page_bytes: int | None = None
    wrong_token: bool = False
    segments: int = _SEGMENTS
    own_pages: bool = False
    shards: int = 1
    syncs: int = 1

    def environment(self) -> Environment:
        """Return the environment that the sandbox serves, the same at each call."""
        page_size = None if self.own_pages else self.segments
        environment = processes.limited_environment(
            self.accounts, self.segments, page_size, self.latency, all_vendors=self.all_vendors
        )
        for index, account in enumerate(environment.accounts):
            if self.fault == "error" and index % 100 in _ERRORS:
                account.faults.append(_ERRORS[index % 100](times=None))
            if self.fault == "rate limit" and index % 20 in _RATE_LIMITED:
                account.faults.append(faults.vendor_rate_limited(self.wait))
            if self.fault == "throttled" and index < 0.75 * self.accounts:
                account.faults.append(
                    faults.vendor_rate_limited(1, times=None, when=_for(self.wait))
                )
            if self.fault == "at limit" and index == _AT_LIMIT:
                account.faults.append(
                    faults.truto_rate_limited(10, times=None, when=_for(self.wait))
                )
            if self.page_bytes:
                account.segments = _large_segments(self.page_bytes)
        return environment


def _for(seconds: float) -> Callable[[Request], bool]:
    """Return a function that returns whether a request comes within `seconds` of the first."""
    first: list[float] = []

    def is_within(request: Request) -> bool:
        first.append(request.at)
        return request.at - first[0] < seconds

    return is_within


def _large_segments(page_bytes: int) -> list[dict[str, Any]]:
    """Return the segments of a page that the vendor's raw records make large."""
    condition = {"type": "profile-property", "operator": "equals", "value": 5, "list": [True, None]}
    conditions = [condition] * (page_bytes // _SEGMENTS // len(json.dumps(condition)))
    remote_data = {"definition": conditions}
    return [{"id": f"s{n}", "name": "A", "remote_data": remote_data} for n in range(_SEGMENTS)]


WORKLOADS = {
    "baseline": Workload("six vendors, one request per account"),
    "all-vendors": Workload("with Beehiiv, which needs several requests", all_vendors=True),
    "incremental": Workload("the first incremental sync", sync_mode="incremental"),
    "large": Workload("five times as many accounts", accounts=5_000),
    "workers": Workload("with `num_workers` 50", num_workers=50),
    "token-all": Workload("a wrong token", wrong_token=True),
    "token-listed": Workload("a wrong token", mode="listed", wrong_token=True),
    "errors": Workload("3 % of the accounts fail and are skipped", fault="error"),
    "waits": Workload(
        "15 % of the accounts wait for their vendor, 5 workers",
        accounts=200,
        num_workers=5,
        fault="rate limit",
    ),
    "throttled": Workload(
        "vendors throttle the first 900", accounts=1_200, fault="throttled", wait=60.0
    ),
    "at-limit": Workload(
        "one account at Truto's limit for it", accounts=1_400, fault="at limit", wait=60.0
    ),
    "big-pages": Workload(
        "pages of 1 MB, all at once", accounts=201, latency=1.0, page_bytes=1_000_000
    ),
    "latency-0.3": Workload("0.3 s per response", accounts=600, latency=0.3),
    "latency-1.0": Workload("1 s per response", accounts=600, latency=1.0),
    "latency-2.5": Workload("2.5 s per response", accounts=600, latency=2.5),
    "latency-listed": Workload("2.5 s per response", accounts=600, latency=2.5, mode="listed"),
    "vendors": Workload(
        "seven vendors, 60 segments per account",
        700,
        all_vendors=True,
        segments=60,
        own_pages=True,
    ),
    "shards": Workload("five processes at the same time, one shard each", shards=_SHARDS),
}
WORKLOADS["vendors-default"] = replace(
    WORKLOADS["vendors"],
    title="the same, with unknown integrations, so default pages",
    mode="listed",
)


SOAK = Workload("incremental syncs", accounts=5_000, sync_mode="incremental", syncs=5)
WORKLOADS["soak"] = SOAK


def main() -> None:
    options = _options()
    conditions = report.conditions()
    reads: dict[str, dict[str, Any]] = {}
    for name in options.only:
        workload = WORKLOADS[name]
        if options.quick:
            workload = replace(workload, accounts=workload.accounts // _QUICK, wait=5.0)
        for number, figures in enumerate(_measure(workload), 1):
            read = name if workload.syncs == 1 else f"{name}-{number}"
            reads[read] = {**asdict(workload), **figures, "conditions": conditions}
            seconds, requests = figures["seconds"], figures["requests"]
            print(f"{read}: {seconds:.1f} s, {requests:,.0f} requests", flush=True)
            if not options.quick:
                report.save(_FIGURES, report.load(_FIGURES) | {read: reads[read]})
    print(f"\n{_table(reads)}")
    if not options.quick:
        kept = report.load(_FIGURES)
        order = {name: place for place, name in enumerate(WORKLOADS)}
        kept = dict(sorted(kept.items(), key=lambda item: order.get(item[0], len(order))))
        report.write_readme("many_accounts.py", f"{_table(kept)}\n\n{_targets(kept)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [*WORKLOADS, "latency"]
    help_ = "latency is all four of them; soak, of twenty minutes, is run only if it is asked for"
    parser.add_argument("--only", nargs="+", choices=names, help=help_)
    parser.add_argument("--quick", action="store_true", help="few accounts; keeps no figures")
    options = parser.parse_args()
    only = options.only or [name for name in names if name != "soak"]
    options.only = [name for name in WORKLOADS if {name, name.partition("-")[0]} & {*only}]
    return options


def _measure(workload: Workload) -> Iterator[Figures]:
    """Measure each sync, and verify its exit code, its status and every record.

    Raises:
        UnverifiedReadError: If any of these is wrong.
    """
    environment = workload.environment()
    accounts = environment.accounts
    config: dict[str, Any] = {
        "additional_accounts": {"mode": workload.mode},
        "on_account_error": "skip" if workload.fault == "error" else "fail",
    }
    if workload.mode == "listed":
        config["additional_accounts"]["ids"] = [account.id for account in accounts[1:]]
    if workload.num_workers:
        config["num_workers"] = workload.num_workers
    if workload.wrong_token:
        config["token"] = "wrong"  # noqa: S105 - it opens nothing
    change = _change if workload.syncs > 1 else None
    streams = _STREAMS if workload.syncs > 1 else _STREAMS[:1]
    with (
        tempfile.TemporaryDirectory(prefix="truto-benchmark-") as name,
        processes.server(processes.serve_sandbox, workload.environment, change) as sandbox,
    ):
        folders = [Path(name) / str(number + 1) for number in range(workload.shards)]
        url = sandbox.recv()
        for folder in folders:
            folder.mkdir()
            if workload.shards > 1:
                config["additional_accounts"]["shard"] = f"{folder.name}/{workload.shards}"
            ids = [accounts[0].id]
            processes.write_inputs(folder, url, ids, workload.sync_mode, streams, **config)
        expected: Iterable[Key] = list(_expected(workload, accounts))
        for number in range(1, workload.syncs + 1):
            state = ("--state", "state.json") if number > 1 else ()
            run = partial(processes.run, (*_READ, *state), exit_code=int(workload.wrong_token))
            with ThreadPoolExecutor(len(folders)) as pool:
                runs = list(pool.map(run, folders))
            sandbox.send("next")
            figures: Figures = {**_together(runs), **sandbox.recv()}
            output = Output.parse(*(folder / processes.OUTPUT for folder in folders))
            if output.status != ("INCOMPLETE" if workload.wrong_token else "COMPLETE"):
                raise UnverifiedReadError(f"The stream is {output.status}: {output.error}")
            output.verify(expected)
            yield figures | _derived(workload, accounts, figures, output)
            if number < workload.syncs:
                expected = _change(environment, number)
                states = json.dumps(protocol.last_states(output.states))
                (folders[0] / "state.json").write_text(states)
                # Truto still counts the last requests of this sync.
                time.sleep(TRUTO_TOKEN_LIMIT.seconds)


def _expected(workload: Workload, accounts: Iterable[Account]) -> Iterator[Key]:
    """Yield the records of a first read: all except those of accounts that fail."""
    for account in accounts:
        if workload.wrong_token or (workload.fault == "error" and account.faults):
            continue
        for segments in (account.segments, *account.workspaces.values()):
            yield from ((account.id, str(segment["id"])) for segment in segments)


def _change(environment: Environment, number: int) -> list[Key]:
    """Rename, add and delete a segment of some accounts; return what the next sync has to emit."""
    keys = []
    for account in environment.accounts[number::_CHANGED_EVERY]:
        renamed, *kept, deleted = [dict(segment) for segment in account.segments]
        added = {**renamed, "id": f"{renamed['id']}-{number}", "name": "added"}
        account.segments = [{**renamed, "name": f"renamed {number}"}, *kept, added]
        keys += [(account.id, str(segment["id"])) for segment in (renamed, added, deleted)]
    return keys


def _together(runs: list[Figures]) -> Figures:
    """Combine the figures of processes that ran at the same time; memory is the largest one's."""
    started_at = min(run["started_at"] for run in runs)
    return {
        "started_at": started_at,
        "seconds": max(run["started_at"] + run["seconds"] for run in runs) - started_at,
        "cpu_seconds": sum(run["cpu_seconds"] for run in runs),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
    }


def _derived(
    workload: Workload, accounts: list[Account], figures: Figures, output: Output
) -> Figures:
    """Return what follows from a verified read; times are seconds from the process's start."""
    started_at = figures["started_at"]
    windows = (figures["requests"] - 1) // TRUTO_TOKEN_LIMIT.requests
    emitted = [
        (account, *output.emitted.get(account.id, (started_at,) * 2)) for account in accounts
    ]
    return {
        "start_up": figures["first_at"] - started_at,
        "bound": windows * TRUTO_TOKEN_LIMIT.seconds + workload.latency,
        "bound_once": len(accounts) // TRUTO_TOKEN_LIMIT.requests * TRUTO_TOKEN_LIMIT.seconds
        + workload.latency,
        "output_bytes": output.size,
        "state_bytes": output.state_size,
        "last_healthy": max(last for account, _, last in emitted if not account.faults)
        - started_at,
        "first_faulty": min(
            (first for account, first, _ in emitted if account.faults), default=started_at
        )
        - started_at,
    }


# --- the report -----------------------------------------------------------------------------------


def _table(reads: dict[str, dict[str, Any]]) -> str:
    """Return the table of some reads, after when, where and how they were measured."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "workload": lambda read: read["name"],
        "description": lambda read: f"{read['title']} ({read['mode']})",
        "accounts": lambda read: f"{read['accounts']:,}",
        "seconds": lambda read: f"{read['seconds']:.1f}",
        "start-up": lambda read: f"{read['start_up']:.1f}",
        "first request to end": lambda read: f"{read['seconds'] - read['start_up']:.1f}",
        "requests": lambda read: f"{read['requests']:,}",
        "bound": lambda read: f"{read['bound']:.1f}",
        "seconds / bound": lambda read: f"{read['seconds'] / read['bound']:.2f}",
        "first request to end / bound": lambda read: f"{_bounds(read):.2f}",
        "429s": lambda read: f"{read['rate_limited']:,}",
        "peak memory": lambda read: f"{read['peak_bytes'] / 1e6:.0f} MB",
        "processor time": lambda read: f"{read['cpu_seconds']:.1f} s",
        "output": lambda read: f"{read['output_bytes'] / 1e6:.1f} MB",
        "states' share": lambda read: f"{read['state_bytes'] / read['output_bytes']:.1%}",
    }
    items = [{"name": name, **read} for name, read in reads.items()]
    conditions = dict.fromkeys(f"- {read['conditions']}" for read in items)
    return "\n\n".join(["\n".join(conditions), report.table(items, columns, left=2)])


def _bounds(read: dict[str, Any]) -> float:
    """Return the time from the first request to the end as a multiple of the bound."""
    return float((read["seconds"] - read["start_up"]) / read["bound"])


def _targets(reads: dict[str, dict[str, Any]]) -> str:  # noqa: C901 - a branch for each target
    """Return the targets, and whether the measured workloads meet them."""
    targets: dict[str, dict[str, bool]] = {}

    def target(text: str, name: str, *, is_met: bool) -> None:
        targets.setdefault(text, {})[name] = is_met

    for name, read in reads.items():
        if name in {"baseline", "incremental", "large"}:
            share = read["state_bytes"] / read["output_bytes"]
            target(
                "at most 1.5 times the bound", name, is_met=read["seconds"] <= 1.5 * read["bound"]
            )
            target("peak memory below 250 MB", name, is_met=read["peak_bytes"] < _MAX_BYTES)
            target("states below 10 % of the output", name, is_met=share < _MAX_STATE_SHARE)
        if name == "big-pages":
            is_met = read["peak_bytes"] < _MAX_BYTES_OF_BIG_PAGES
            target("peak memory below 450 MB", name, is_met=is_met)
        if name.startswith("latency"):
            text = "at most 1.6 times the bound from the first request to the end"
            target(text, name, is_met=_bounds(read) <= _MAX_BOUNDS)
        if name == "vendors":
            # Without the requests for the list of accounts, one per 100 accounts.
            requests = (read["requests"] - read["accounts"] / 100) / (read["accounts"] / 7)
            text = f"at most {_MAX_REQUESTS_OF_SEVEN} requests for seven accounts, one per vendor"
            target(text, name, is_met=requests <= _MAX_REQUESTS_OF_SEVEN)
        if name.startswith("token"):
            target(
                "at most 5 requests", name, is_met=read["requests"] <= _MAX_REQUESTS_OF_WRONG_TOKEN
            )
        elif name in {"throttled", "at-limit"}:
            bounds = (read["last_healthy"] - read["start_up"]) / read["bound_once"]
            text = "the other accounts finish within 1.5 times the bound of one request per account"
            target(text, name, is_met=bounds <= _MAX_BOUNDS_OF_HEALTHY)
        elif name == "waits":
            is_met = read["last_healthy"] < read["first_faulty"]
            target("an account that waits delays no other", name, is_met=is_met)
        else:
            target("no 429", name, is_met=read["rate_limited"] == 0)
    if {"baseline", "large"} <= reads.keys():
        is_met = _bounds(reads["large"]) <= 1.1 * _bounds(reads["baseline"])
        text = "at most 1.1 times the first request to end / bound of baseline"
        target(text, "large", is_met=is_met)
    verdicts = (
        ", ".join(f"{name} {report.verdict(is_met=is_met)}" for name, is_met in names.items())
        for names in targets.values()
    )
    return "\n".join(f"- {text}: {each}" for text, each in zip(targets, verdicts, strict=True))


if __name__ == "__main__":
    sys.exit(report.run_command(main))
