"""Run a query on the tables that the demo has loaded."""

from __future__ import annotations

import sys

import duckdb

from scripts._common import ScriptError, run_script, say
from scripts.demo import DATABASE, EXAMPLE


def main() -> None:
    if not DATABASE.exists():
        raise ScriptError(f"There is no {DATABASE.name} yet: run bash scripts/demo.sh first.")
    with duckdb.connect(str(DATABASE), read_only=True) as database:
        found = database.sql(" ".join(sys.argv[1:]) or EXAMPLE)
        # A statement that is not a query, such as SET, has no rows.
        say(str(found) if found is not None else "Done.")


if __name__ == "__main__":
    sys.exit(run_script(main, OSError, duckdb.Error))
