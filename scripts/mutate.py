"""Summarize the last run of mutmut: a table, and the changes that no test killed."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# For example "source_truto_segments.sync.state.x_read_filters__mutmut_3: survived".
RESULT = re.compile(
    r"\s*(?P<name>source_truto_segments\.(?:\w+\.)?(?P<module>\w+)\.x\S+): (?P<status>.+)"
)
NOT_TRIED = "not checked"
COLUMNS = ("killed", "survived", "timeout", "no tests")
# A change that makes a test hang is noticed, too.
NOTICED = ("killed", "timeout")


def main() -> None:
    command = [str(Path(sys.executable).with_name("mutmut")), "results", "--all", "true"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    results = [result for result in RESULT.finditer(output) if result["status"] != NOT_TRIED]
    print_table(results)
    not_killed = [result for result in results if result["status"] != "killed"]
    for result in not_killed:
        print(f"  {result['name']}: {result['status']}")
    if not_killed:
        print("\nTo see one:\n  .venv/bin/mutmut show NAME")


def print_table(results: Iterable[re.Match[str]]) -> None:
    rows: dict[str, Counter[str]] = {}
    for result in results:
        rows.setdefault(result["module"], Counter())[result["status"]] += 1
    rows = dict(sorted(rows.items())) | {"all": sum(rows.values(), Counter())}
    print(f"\n{'module':15}", *(f"{column:>9}" for column in (*COLUMNS, "total", "score")))
    for module, counts in rows.items():
        score = sum(counts[status] for status in NOTICED) / max(1, counts.total())
        cells = (*(counts[column] for column in COLUMNS), counts.total())
        print(f"{module:15}", *(f"{cell:>9}" for cell in cells), f"{score:>9.1%}")
    print()


if __name__ == "__main__":
    main()
