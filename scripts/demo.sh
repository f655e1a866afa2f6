#!/usr/bin/env bash
# Runs the connector as Airbyte does (spec, check, discover, and two incremental reads) and loads
# what it reads into demo.duckdb. Needs Python 3.10 to 3.13 and, the first time, a package index.
#
#   bash scripts/demo.sh
#
# By default, it reads seven made-up accounts, one of each vendor, from a server on this machine, and
# changes three segments there between the two reads.
# To read an account of your own from Truto, set both of these environment variables:
#   TRUTO_TOKEN                    an API token of your Truto environment
#   TRUTO_INTEGRATED_ACCOUNT_ID    the account to read
# Other environment variables:
#   TRUTO_API_URL                  another address of the Truto API
#   PYTHON                         the Python to use
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

no_arguments "$@"
prepare demo
run_python -m scripts.demo
