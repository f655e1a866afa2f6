#!/usr/bin/env bash
# Runs a query on the tables that scripts/demo.sh has loaded into demo.duckdb:
#
#   bash scripts/query.sh "SELECT name FROM segments LIMIT 5"
#
# Without a query, it shows the segments that changed last.
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

offer_help "$@"
prepare demo
run_python -m scripts.query "$@"
