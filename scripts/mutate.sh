#!/usr/bin/env bash
# Mutation testing: changes the core of the package in about a thousand small ways, one at a time,
# and tells which of the changes no test notices. Needs Python 3.10 to 3.13 and, the first time, a
# package index.
#
#   bash scripts/mutate.sh                  # the whole core
#   bash scripts/mutate.sh state records    # these modules only
#
# The core and its tests are named in pyproject.toml, under [tool.mutmut]. Each run begins anew in
# the folder mutants/, which can be deleted.
# Heeded: PYTHON, the Python to use; JOBS, how many changes are tried at once (by default, as many as
# there are processors).
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
  no_arguments --help
fi
prepare dev demo mutation
_clean_up
exec "$VENV_PYTHON" -X utf8 "$ROOT/scripts/mutate.py" "$@"
