#!/usr/bin/env bash
# Checks whether the live Truto API behaves as the connector expects, and prints for each fact whether
# it holds, differs or could not be seen. Needs Python 3.10 to 3.13 and, the first time, a package
# index.
#
#   bash scripts/check_live.sh
#
# It sends only GET requests, at most 60 within three minutes, and changes nothing. It also writes the
# table to live_check.md, to attach to an issue. The table contains types, forms and numbers, but
# neither the token nor any customer data.
# By default it checks the sandbox, a server on this machine. To check Truto, set both of these
# environment variables:
#   TRUTO_TOKEN                    an API token of your Truto environment
#   TRUTO_INTEGRATED_ACCOUNT_ID    the account to read
# Other environment variables:
#   TRUTO_API_URL                  another address of the Truto API: https, or on this machine
#   PYTHON                         the Python to use
# Exit codes: 0 if nothing differs, 1 if something does, 2 if nothing could be checked.
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

no_arguments "$@"
prepare demo
run_python -m live_checks
