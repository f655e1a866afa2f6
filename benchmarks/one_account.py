"""Measures the read of one large account beside a declarative manifest on the same CDK.

python benchmarks/one_account.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
# Python puts the folder of a script there, not the root that its imports begin at.
sys.path.insert(0, str(ROOT))

from sandbox import Account, Environment, Sandbox, vendors  # noqa: E402
from source_truto_segments.records import Columns, fit  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCOUNT_ID = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"
PAGE = 100
SCRIPTS = Path(sysconfig.get_path("scripts"))
BEGIN = "<!-- figures: written by one_account.py -->"
END = "<!-- end of figures of one account -->"
README = ROOT / "benchmarks" / "README.md"
MOST_OF_MANIFEST = 0.6

CONNECTOR = "this connector"
MANIFEST = "a declarative manifest"
NAME_ONLY = "this connector, only id and name asked for"


class Records:
    """A thousand records over and over, each with an id of its own."""

    def __init__(self, length: int) -> None:
        self._records = vendors.segments("klaviyo", 1000)
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return {**self._records[index % 1000], "id": f"segment-{index}"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000, help="records of the account")
    parser.add_argument("--rounds", type=int, default=3, help="reads of each contender")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return _serve(options.records)
    began, load = time.strftime("%Y-%m-%d"), os.getloadavg()[0]
    seconds = _rounds(options.records, options.rounds)
    machine = f"{os.cpu_count()} cores, Python {sys.version.split()[0]}"
    work = f"{options.records:,} records in pages of {PAGE}, median of {options.rounds} rounds"
    command = f"`python benchmarks/one_account.py`, load average {load:.1f} before"
    lines = [
        f"{began}, {machine}, {work}; {command}",
        "",
        *_table(options.records, seconds),
        "",
        *_fitting(),
    ]
    text = "\n".join(lines)
    print(f"\n{text}")
    if options.records == parser.get_default("records"):
        _write(text)
    return 0


def _serve(records: int) -> int:
    account = Account(
        ACCOUNT_ID,
        "klaviyo",
        segments=Records(records),  # type: ignore[arg-type]
        default_page_size=PAGE,
        max_page_size=PAGE,
    )
    environment = Environment([account])
    with Sandbox(environment) as sandbox:
        print(json.dumps({"api_url": sandbox.url, "token": environment.token}), flush=True)
        sys.stdin.read()
    return 0


def _rounds(records: int, rounds: int) -> dict[str, list[float]]:
    """Reads with each contender in turn, so that what else the machine does meets them all."""
    seconds: dict[str, list[float]] = {CONNECTOR: [], MANIFEST: [], NAME_ONLY: []}
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", "--records", str(records)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if server.stdin is None or server.stdout is None:
            raise RuntimeError("the sandbox has no pipes")
        config = {**json.loads(server.stdout.readline()), "integrated_account_id": ACCOUNT_ID}
        (folder / "config.json").write_text(json.dumps(config))
        _write_catalog(folder / "catalog.json", {})
        names = {"properties": {"id": {"type": "string"}, "name": {"type": ["null", "string"]}}}
        _write_catalog(folder / "names.json", names)
        unpaced = [sys.executable, "-W", "ignore", "-m", "benchmarks.unpaced", "read"]
        manifest = [
            *(str(SCRIPTS / "source-declarative-manifest"), "read"),
            *("--manifest-path", str(ROOT / "benchmarks" / "manifest.yaml")),
        ]
        commands = {
            CONNECTOR: [*unpaced, "--catalog", "catalog.json"],
            MANIFEST: [*manifest, "--catalog", "catalog.json"],
            NAME_ONLY: [*unpaced, "--catalog", "names.json"],
        }
        for number in range(rounds):
            for contender, command in commands.items():
                took = _read(command, folder, records)
                seconds[contender].append(took)
                print(f"round {number + 1}: {contender}: {took:.1f} s", flush=True)
        server.stdin.close()
    return seconds


def _read(command: list[str], folder: Path, records: int) -> float:
    output = folder / "output.jsonl"
    with output.open("wb") as out:
        began = time.monotonic()
        subprocess.run(
            [*command, "--config", "config.json"],
            cwd=folder,
            stdout=out,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"},
        )
        took = time.monotonic() - began
    with output.open("rb") as lines:
        ids = {json.loads(line)["record"]["data"]["id"] for line in lines if b'"RECORD"' in line}
    if len(ids) != records:
        raise SystemExit(f"one_account: {len(ids):,} of {records:,} records came; no figures.")
    return took


def _write_catalog(path: Path, schema: dict[str, Any]) -> None:
    stream = {
        "name": "segments",
        "json_schema": schema,
        "supported_sync_modes": ["full_refresh"],
    }
    configured = {
        "stream": stream,
        "sync_mode": "full_refresh",
        "destination_sync_mode": "overwrite",
    }
    path.write_text(json.dumps({"streams": [configured]}))


def _table(records: int, seconds: dict[str, list[float]]) -> list[str]:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    lines = ["| reader | seconds | records a second | of the manifest's time |"]
    lines.append("| --- | ---: | ---: | ---: |")
    lines += [
        f"| {name} | {median:.1f} | {records / median:,.0f} | {median / medians[MANIFEST]:.2f} |"
        for name, median in medians.items()
    ]
    ratio = medians[CONNECTOR] / medians[MANIFEST]
    verdict = "met" if ratio <= MOST_OF_MANIFEST else "not met"
    return [*lines, "", f"Target: at most {MOST_OF_MANIFEST} of the manifest's time: {verdict}."]


def _fitting() -> list[str]:
    """What it costs to make records fit, by itself."""
    records = [record for vendor in vendors.VENDORS for record in vendors.segments(vendor, 2000)]
    columns = Columns.of({})
    lines = ["| step, in one thread | records a second |", "| --- | ---: |"]
    for name, step in (
        ("a copy of each record (without fitting)", dict),
        ("each record made to fit", lambda record: fit(record, columns)),
    ):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            for record in records:
                step(record)
            times.append(time.perf_counter() - began)
        lines.append(f"| {name} | {len(records) / statistics.median(times):,.0f} |")
    return lines


def _write(text: str) -> None:
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    print(f"Written into {README.relative_to(ROOT)}.")


if __name__ == "__main__":
    sys.exit(main())
