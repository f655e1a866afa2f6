#!/usr/bin/env bash
# Runs every check: ruff's format and rules, mypy, and all tests. The ones after a failed check are
# run as well. Needs Python 3.10 to 3.13 and, the first time, a package index.
#
#   bash scripts/test.sh
#
# Heeded: PYTHON, the Python to use.
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

FAILED=

# check NAME TODO COMMAND...: runs a check; if it fails, TODO says what to do at the end.
check() {
  local name=$1 todo=$2 started=$SECONDS
  shift 2
  printf '\n== %s\n' "$name"
  if "$@" </dev/null; then
    printf '== %s: passed in %s s\n' "$name" $((SECONDS - started))
  else
    printf '== %s: FAILED after %s s\n' "$name" $((SECONDS - started))
    FAILED="$FAILED
  $name: $todo"
  fi
}

no_arguments "$@"
prepare dev demo
cd "$ROOT"
BIN=$VENV/bin

check "ruff format" "run .venv/bin/ruff format" "$BIN/ruff" format --check
check "ruff check" "correct what is listed under it; .venv/bin/ruff check --fix does some of it" \
  "$BIN/ruff" check
check "mypy" "correct the types listed under it" "$BIN/mypy"
# First unit_tests, then integration_tests: pyproject.toml has the folders in their order.
check "pytest" "see the failures above; .venv/bin/pytest --last-failed runs only these again" \
  "$BIN/pytest"
# Wheel and sdist in empty environments take a minute or two each time; the other Pythons are left to
# scripts/check_packages.sh itself.
if [ -n "${CI:-}" ]; then
  check "packages" "see the failure above" bash scripts/check_packages.sh --python "$VENV_PYTHON"
fi

if [ -n "$FAILED" ]; then
  fail "These checks failed after $SECONDS s in all:$FAILED"
fi
printf '\nAll checks passed in %s s.\n' "$SECONDS"
