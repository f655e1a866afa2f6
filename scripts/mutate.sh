#!/usr/bin/env bash
# Mutation testing: changes the core of the package in many small ways, one at a time, and lists the
# changes that no test notices. Needs Python 3.10 to 3.13 and, the first time, a package index.
#
#   bash scripts/mutate.sh                  # the whole core
#   bash scripts/mutate.sh state columns    # only these modules
#
# The core and its tests are listed in pyproject.toml, under [tool.mutmut]. Each run starts over in
# the folder mutants/, which can be deleted.
# Environment variables: PYTHON, the Python to use; JOBS, how many changes are tried at the same time
# (by default, as many as there are processors).
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

case "${1:-}" in
  -*) no_arguments "$@" ;;
esac
prepare dev mutation
cd "$ROOT"
rm -rf mutants
for module; do
  set -- "$@" "source_truto_segments.*.$module.*"
  shift
done
# mutmut ends what it prints on its progress with carriage returns.
mutate() {
  "$VENV/bin/mutmut" run ${JOBS:+--max-children "$JOBS"} "$@" | tr '\r' '\n'
}
must "Is each module one of those in pyproject.toml? Do the tests pass without any change?" \
  "Changing the core and running its tests (minutes)" mutate "$@"
run_python scripts/mutate.py
