"""Syncs many accounts several times, with changes at the vendors in between.

python benchmarks/soak.py

The table in README.md is replaced by what the default sizes give.

All three streams are read incrementally under Truto's limits. After each sync, a simulated
destination must hold what the sandbox holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

ROOT = Path(__file__).resolve().parent.parent
# Python puts the folder of a script there, not the root that its imports start from.
sys.path.insert(0, str(ROOT))

from benchmarks import processes, report  # noqa: E402
from benchmarks.processes import Figures, UnverifiedReadError  # noqa: E402
from sandbox import TRUTO_TOKEN_LIMIT, Sandbox  # noqa: E402

if TYPE_CHECKING:
    from sandbox import Account, Environment

_READ = (Path(sysconfig.get_path("scripts")) / "source-truto-segments", "read")
_STREAMS = ("segments", "integrated_accounts", "workspaces")
_LATENCY = 0.3
# Not 10: a list that ends with a usual default page is read twice.
_SEGMENTS = 12
# Of each hundred accounts, one has three changes.
_CHANGED_EVERY = 100

Row = dict[str, Any]
Table = dict[tuple[str, str], Row]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--accounts", type=int, default=5_000)
    parser.add_argument("--syncs", type=int, default=5)
    options = parser.parse_args()
    environment = processes.limited_environment(options.accounts, _SEGMENTS, _SEGMENTS, _LATENCY)
    conditions = report.conditions()
    reads: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="truto-soak-") as name, Sandbox(environment) as sandbox:
        folder, tables = Path(name), {stream: Table() for stream in _STREAMS}
        _write_inputs(folder, sandbox.url, environment)
        for number in range(1, options.syncs + 1):
            changed = 0
            if number > 1:
                changed = _change(environment, number)
                # Truto still counts the last requests of the sync before.
                time.sleep(TRUTO_TOKEN_LIMIT.seconds)
            sandbox.clear()
            figures = processes.run(_command(folder), folder)
            sent = _load(folder, tables)
            _verify(environment, tables)
            figures |= _derived(sandbox, folder)
            reads.append({"sync": number, "changed": changed, "sent": sent, **figures})
            print(f"sync {number}: {figures['seconds']:.1f} s, {sent:,} records", flush=True)
    print(f"\n{_table(reads)}")
    if sys.argv[1:]:
        print("\nNot the default sizes; nothing is kept.")
    else:
        report.write_readme("soak.py", f"{conditions}\n\n{_table(reads)}")


def _write_inputs(folder: Path, url: str, environment: Environment) -> None:
    first = environment.accounts[0].id
    config = {"additional_accounts": {"mode": "all"}}
    processes.write_inputs(folder, url, [first], "incremental", **config)
    catalog = json.loads((folder / "catalog.json").read_text())
    (configured,) = catalog["streams"]
    streams = [
        {**configured, "stream": {**configured["stream"], "name": name}} for name in _STREAMS
    ]
    (folder / "catalog.json").write_text(json.dumps({"streams": streams}))


def _command(folder: Path) -> list[str | Path]:
    state = ["--state", "state.json"] if (folder / "state.json").exists() else []
    return [*_READ, "--config", "config.json", "--catalog", "catalog.json", *state]


def _change(environment: Environment, number: int) -> int:
    """Renames, adds and deletes a segment of some accounts; gives how many changed."""
    accounts = environment.accounts[number::_CHANGED_EVERY]
    for account in accounts:
        renamed, *kept, _ = [dict(segment) for segment in account.segments]
        added = {**renamed, "id": f"{renamed['id']}{number}", "name": "added"}
        account.segments = [{**renamed, "name": f"renamed {number}"}, *kept, added]
    return 3 * len(accounts)


def _load(folder: Path, tables: dict[str, Table]) -> int:
    """Applies the messages as a destination that deduplicates; gives how many records came."""
    states: dict[str, Any] = {}
    sent = 0
    with (folder / processes.OUTPUT).open("rb") as lines:
        for message in map(orjson.loads, lines):
            if message["type"] == "STATE":
                states[message["state"]["stream"]["stream_descriptor"]["name"]] = message["state"]
            if message["type"] != "RECORD":
                continue
            sent += 1
            row, table = message["record"]["data"], tables[message["record"]["stream"]]
            key = row.get("integrated_account_id", ""), row["id"]
            if "_ab_cdc_deleted_at" in row:
                del table[key]
            else:
                table[key] = row
    for state in states.values():
        state.pop("sourceStats", None)
    (folder / "state.json").write_bytes(orjson.dumps(list(states.values())))
    return sent


def _verify(environment: Environment, tables: dict[str, Table]) -> None:
    """Compares the tables with the sandbox.

    Raises:
        UnverifiedReadError: If they differ.
    """

    def names(account: Account) -> dict[tuple[str, str], Any]:
        return {(account.id, str(row["id"])): row["name"] for row in account.segments}

    expected = {key: name for each in environment.accounts for key, name in names(each).items()}
    found = {key: row.get("name") for key, row in tables["segments"].items()}
    if found != expected:
        raise UnverifiedReadError("The table of segments differs from the sandbox.")
    if {key for _, key in tables["integrated_accounts"]} != {a.id for a in environment.accounts}:
        raise UnverifiedReadError("The table of accounts differs from the sandbox.")


def _derived(sandbox: Sandbox, folder: Path) -> Figures:
    requests = sandbox.requests
    windows = (len(requests) - 1) // TRUTO_TOKEN_LIMIT.requests
    return {
        "requests": len(requests),
        "bound": windows * TRUTO_TOKEN_LIMIT.seconds + _LATENCY,
        "rate_limited": sum(request.status == 429 for request in requests),  # noqa: PLR2004
        "state_bytes": (folder / "state.json").stat().st_size,
    }


def _table(reads: list[Row]) -> str:
    columns = {
        "sync": lambda read: str(read["sync"]),
        "rows changed": lambda read: f"{read['changed']:,}",
        "records sent": lambda read: f"{read['sent']:,}",
        "seconds": lambda read: f"{read['seconds']:.1f}",
        "requests": lambda read: f"{read['requests']:,}",
        "seconds / bound": lambda read: f"{read['seconds'] / read['bound']:.2f}",
        "429s": lambda read: f"{read['rate_limited']:,}",
        "peak memory": lambda read: f"{read['peak_bytes'] / 1e6:.0f} MB",
        "states": lambda read: f"{read['state_bytes'] / 1e6:.2f} MB",
    }
    return report.table(reads, columns, left=1)


if __name__ == "__main__":
    sys.exit(report.run_command(main))
