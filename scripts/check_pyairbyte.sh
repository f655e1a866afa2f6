#!/usr/bin/env bash
# Reads the sandbox through PyAirbyte into DuckDB, and compares the tables with what the sandbox
# holds: full refresh, incremental, many accounts, and after failures.
#
#   bash scripts/check_pyairbyte.sh
#
# Needs Python 3.10 to 3.12, which are those of PyAirbyte; and, the first time, a package index,
# about two minutes and 800 MB for .venv-pyairbyte. All else happens on this machine.
# Heeded: PYTHON, the Python to use.
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

# An environment of its own: PyAirbyte brings well over a hundred packages.
VENV=$ROOT/.venv-pyairbyte
VENV_PYTHON=$VENV/bin/python
UNFINISHED=$VENV/.unfinished
CANDIDATES="python3.12 python3.11 python3.10 python3"
# The sandbox needs aiohttp.
PACKAGES=("aiohttp>=3.10,<4" "airbyte>=0.71,<0.72")

make_environment() {
  _choose_python
  if ! "$CHOSEN" -c 'import sys; sys.exit(sys.version_info[:2] > (3, 12))' </dev/null; then
    fail "PyAirbyte needs Python 3.10 to 3.12, but $CHOSEN is $("$CHOSEN" --version 2>&1). Install one of these, or set PYTHON to its path."
  fi
  rm -rf "$VENV"
  if ! quietly "Making .venv-pyairbyte with $("$CHOSEN" --version 2>&1)" \
    "$CHOSEN" -m venv "$VENV"; then
    tail -n 20 "$LOG" >&2
    rm -rf "$VENV"
    fail "$CHOSEN could not make a virtual environment; what it said is above. Set PYTHON to another Python, or install what it names."
  fi
  _identity "$VENV_PYTHON" >"$VENV/.identity"
}

install_packages() {
  pip_install "Installing the connector and PyAirbyte (about two minutes the first time)" \
    -e "$ROOT" "${PACKAGES[@]}"
}

no_arguments "$@"
if ! _venv_is_whole; then
  make_environment
fi
WANTED="$(_fingerprint) ${PACKAGES[*]}"
if [ "$WANTED" != "$(cat "$(_stamp pyairbyte)" 2>/dev/null)" ]; then
  install_packages
  printf '%s\n' "$WANTED" >"$(_stamp pyairbyte)"
fi
_clean_up
# From the project's folder, where the sandbox is.
cd "$ROOT"
exec "$VENV_PYTHON" -X utf8 -m scripts.check_pyairbyte
