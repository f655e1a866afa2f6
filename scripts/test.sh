#!/usr/bin/env bash
# Runs every check: ruff's format and rules, mypy, and all tests; in continuous integration (if CI is
# set), also the packages. If a check fails, the others still run. Needs Python 3.10 to 3.13 and, the
# first time, a package index.
#
#   bash scripts/test.sh
#
# Environment variables: PYTHON, the Python to use.
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

FAILED=

# check NAME GUIDANCE COMMAND...: run a check; if it fails, show GUIDANCE at the end.
check() {
  local started=$SECONDS
  printf '\n== %s\n' "$1"
  if "${@:3}" </dev/null; then
    printf '== %s: passed in %s s\n' "$1" $((SECONDS - started))
  else
    printf '== %s: FAILED after %s s\n' "$1" $((SECONDS - started))
    FAILED="$FAILED
  $1: $2"
  fi
}

no_arguments "$@"
prepare dev demo
cd "$ROOT"
BIN=$VENV/bin

check "ruff format" "run .venv/bin/ruff format" "$BIN/ruff" format --check
check "ruff check" "correct what it lists; .venv/bin/ruff check --fix does some of it" \
  "$BIN/ruff" check
check "mypy" "correct the types that it lists" "$BIN/mypy"
check "pytest" "see the failures above; .venv/bin/pytest --last-failed runs only these" \
  "$BIN/pytest" --numprocesses auto --maxprocesses 4 --dist worksteal
if [ -n "${CI:-}" ]; then
  # Only on this Python, as each takes a minute.
  check "packages" "see the failure above" env PYTHON="$VENV_PYTHON" bash scripts/check_packages.sh
fi

[ -z "$FAILED" ] || fail "These checks failed ($SECONDS s in all):$FAILED"
printf '\nAll checks passed in %s s.\n' "$SECONDS"
