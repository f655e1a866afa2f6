#!/usr/bin/env bash
# Mutation testing: makes many small changes to the core of the package, one at a time, and lists
# those that no test notices. Needs Python 3.10 to 3.13 and, the first time, a package index.
#
#   bash scripts/mutate.sh                  # the whole core
#   bash scripts/mutate.sh state columns    # only these modules
#
# pyproject.toml lists the core and its tests, under [tool.mutmut]. Each run starts over in the folder
# mutants/, which you can delete.
# Environment variables: PYTHON, the Python to use; JOBS, how many changes to try at the same time (by
# default, one per processor).
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
# mutmut ends its progress lines with carriage returns.
mutate() {
  "$VENV/bin/mutmut" run ${JOBS:+--max-children "$JOBS"} "$@" | tr '\r' '\n'
}
must "Is each module one of those in pyproject.toml? Do the tests pass without any change?" \
  "Changing the core and running its tests (minutes)" mutate "$@"
run_python scripts/mutate.py
