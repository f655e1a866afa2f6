#!/usr/bin/env bash
# Runs the connector as Airbyte does (spec, check, discover, read) and loads the segments that it
# reads into demo.duckdb. Needs Python 3.10 to 3.13 and, the first time, a package index.
#
#   bash scripts/demo.sh
#
# By default it reads seven made-up accounts, one of each vendor, from a server on this machine.
# To read an account of your own from Truto, set both:
#   TRUTO_TOKEN                    an API token of your Truto environment
#   TRUTO_INTEGRATED_ACCOUNT_ID    the account to read
# Also heeded:
#   TRUTO_API_URL                  another address of the Truto API
#   PYTHON                         the Python to use
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

no_arguments "$@"
prepare demo
_clean_up
exec "$VENV_PYTHON" -X utf8 "$ROOT/scripts/demo.py"
