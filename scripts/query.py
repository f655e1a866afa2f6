"""Run a query on the tables that the demo has loaded."""

from __future__ import annotations

import sys

import duckdb

from scripts._common import ScriptError, run_script, say
from scripts.demo import DATABASE, EXAMPLE


def main() -> None:
    if not DATABASE.exists():
        raise ScriptError(f"There is no {DATABASE.name} yet: run bash scripts/demo.sh first.")
    query = " ".join(sys.argv[1:])
    if not query:
        say(f"No query is given, so this is an example: {EXAMPLE}")
    with duckdb.connect(str(DATABASE), read_only=True) as database:
        try:
            found = database.sql(query or EXAMPLE)
        except duckdb.CatalogException as missing:
            tables = ", ".join(name for (name,) in database.sql("SHOW TABLES").fetchall())
            said = str(missing).splitlines()[0].removeprefix("Catalog Error: ")
            raise ScriptError(f"{said} The tables are: {tables}.") from None
        # A statement that is not a query, such as SET, has no rows.
        say(str(found) if found is not None else "Done.")


if __name__ == "__main__":
    sys.exit(run_script(main, OSError, duckdb.Error))
