# Sourced by the scripts beside it: the Python to use, the virtual environment, and how they speak.
# Needs bash 3.2 and one of the Pythons below; nothing else.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
VENV_PYTHON=$VENV/bin/python
SCRIPT=scripts/$(basename "$0")

# In this order: where the most users are, then the newest.
CANDIDATES="python3.12 python3.11 python3.10 python3.13 python3"

# What pip says where the package index cannot be reached.
NO_CONNECTION='Max retries|connection broken|Could not fetch URL|ConnectionError|ConnectTimeout'
NO_CONNECTION="$NO_CONNECTION|ReadTimeout|ProxyError|SSLError|Temporary failure in name resolution"

# There while packages are being installed; what is left behind by a killed set-up is not trusted.
UNFINISHED=$VENV/.unfinished

CHILD=
LOG=

# Another project's settings must not leak into this one's environment.
unset PYTHONPATH PYTHONHOME PYTHONSAFEPATH
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

fail() {
  printf '\n%s: %s\n' "$SCRIPT" "$1" >&2
  exit 1
}

# Takes no arguments but --help, which prints the comment at the head of the script.
no_arguments() {
  if [ $# -eq 0 ]; then
    return
  fi
  if [ "$1" = --help ] || [ "$1" = -h ]; then
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
    exit 0
  fi
  fail "It takes no arguments (given: $*)."
}

_clean_up() {
  if [ -n "$CHILD" ]; then
    kill -- "-$CHILD" 2>/dev/null || true
    wait "$CHILD" 2>/dev/null || true
  fi
  if [ -n "$LOG" ]; then
    rm -f "$LOG"
  fi
}
_interrupted() {
  printf '\n%s: Interrupted. It can be run again; an unfinished set-up is then done anew.\n' \
    "$SCRIPT" >&2
  exit "$1"
}
trap _clean_up EXIT
trap '_interrupted 130' INT
trap '_interrupted 143' TERM
trap '_interrupted 129' HUP

# quietly TEXT COMMAND...: runs a long command without its output, and shows how long it takes.
# Returns the command's exit code; its output is then in $LOG.
quietly() {
  local text=$1 started=$SECONDS told=$SECONDS status=0
  shift
  if [ -z "$LOG" ]; then
    LOG=$(mktemp "${TMPDIR:-/tmp}/set-up.XXXXXX")
  fi
  printf '%s ...' "$text"
  # In the background, so that a signal is acted on at once; as a group, so that its own children
  # end with it.
  set -m
  "$@" >"$LOG" 2>&1 </dev/null &
  CHILD=$!
  set +m
  while kill -0 "$CHILD" 2>/dev/null; do
    sleep 0.3
    if [ -t 1 ]; then
      printf '\r%s ... %s s' "$text" $((SECONDS - started))
    elif [ $((SECONDS - told)) -ge 15 ]; then
      told=$SECONDS
      printf ' %s s ...' $((SECONDS - started))
    fi
  done
  wait "$CHILD" || status=$?
  CHILD=
  if [ -t 1 ]; then
    printf '\r%s ...' "$text"
  fi
  if [ "$status" -eq 0 ]; then
    printf ' done in %s s\n' $((SECONDS - started))
  else
    printf ' failed after %s s\n' $((SECONDS - started))
  fi
  return "$status"
}

# What keeps a Python from being used, in words; nothing if it can be.
_objection() {
  local answer
  # By running it: a name on the path can be a shim that fails when it is called.
  if ! answer=$("$1" -c '
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    print("is Python %d.%d; 3.10 to 3.13 are supported" % sys.version_info[:2])
else:
    try:
        import ensurepip, venv
        print("fits")
    except ImportError:
        print("lacks the module venv or pip (Debian and Ubuntu: install the package "
              "python%d.%d-venv)" % sys.version_info[:2])
' 2>/dev/null </dev/null); then
    answer="cannot be run"
  elif [ -z "$answer" ]; then
    answer="is no Python"
  fi
  if [ "$answer" != fits ]; then
    printf '%s' "$answer"
  fi
}

# Sets CHOSEN to the Python that the environment is made with.
_choose_python() {
  local candidate objection objections=
  if [ -n "${PYTHON:-}" ]; then
    objection=$(_objection "$PYTHON")
    if [ -n "$objection" ]; then
      fail "PYTHON=$PYTHON $objection. Set PYTHON to another one, or leave it unset."
    fi
    CHOSEN=$PYTHON
    return
  fi
  for candidate in $CANDIDATES; do
    if ! command -v "$candidate" >/dev/null 2>&1; then
      continue
    fi
    objection=$(_objection "$candidate")
    if [ -z "$objection" ]; then
      CHOSEN=$candidate
      return
    fi
    objections="$objections $candidate $objection."
  done
  fail "No Python from 3.10 to 3.13 was found.$objections Install one, or set PYTHON to its path."
}

# Which Python this is, and for which folder: an environment does not survive being moved.
_identity() {
  "$1" -c 'import sys; print(sys.version.split()[0], sys.base_prefix, sys.argv[1])' "$ROOT" \
    2>/dev/null </dev/null
}

# Whether the environment at hand can be built on. Without PYTHON, any Python that fits is kept.
_venv_is_whole() {
  local identity
  [ -x "$VENV_PYTHON" ] && [ ! -e "$UNFINISHED" ] || return 1
  identity=$(_identity "$VENV_PYTHON") || return 1
  [ "$identity" = "$(cat "$VENV/.identity" 2>/dev/null)" ] || return 1
  [ -z "${PYTHON:-}" ] || [ "$identity" = "$(_identity "$PYTHON")" ]
}

# What an installation depends on.
_fingerprint() {
  (cd "$ROOT" && "$VENV_PYTHON" -c '
import hashlib, pathlib, sys
content = [pathlib.Path(name).read_bytes() for name in sys.argv[1:]]
print(hashlib.sha256(b"\0".join(content)).hexdigest())
' setup.py pyproject.toml source_truto_segments/VERSION)
}

# The stamp of a finished installation, one for each extra.
_stamp() {
  printf '%s/.installed-%s' "$VENV" "$1"
}

_install() {
  pip_install "Installing the connector and its packages (one to two minutes the first time)" \
    -e "${ROOT}[$1]"
}

# pip_install DOING PACKAGE...: installs packages, and says in a sentence why it could not.
pip_install() {
  local doing=$1
  shift
  : >"$UNFINISHED"
  # Where pip fails by itself it leaves whole packages; where it is killed, the mark stays.
  if ! quietly "$doing" "$VENV_PYTHON" -m pip install --quiet --progress-bar off "$@"; then
    rm -f "$UNFINISHED"
    if grep -iE "$NO_CONNECTION" "$LOG" | tail -n 1 >&2; then
      fail "The package index could not be reached; pip's last word on it is above. Check the network (and PIP_INDEX_URL, PIP_CERT and the proxy, if set), then run this again."
    fi
    tail -n 20 "$LOG" >&2
    fail "pip could not install the packages; its last lines are above. Resolve what it names, then run this again."
  fi
  rm -f "$UNFINISHED"
}

# prepare EXTRA...: makes .venv with the connector and these extras, or reuses it.
prepare() {
  local extra fingerprint is_complete=true
  if ! _venv_is_whole; then
    _choose_python
    rm -rf "$VENV"
    if ! quietly "Making .venv with $("$CHOSEN" --version 2>&1)" "$CHOSEN" -m venv "$VENV"; then
      tail -n 20 "$LOG" >&2
      rm -rf "$VENV"
      fail "$CHOSEN could not make a virtual environment; what it said is above. Set PYTHON to another Python, or install what it names."
    fi
    _identity "$VENV_PYTHON" >"$VENV/.identity"
  fi
  fingerprint=$(_fingerprint)
  for extra in "$@"; do
    if [ "$fingerprint" != "$(cat "$(_stamp "$extra")" 2>/dev/null)" ]; then
      is_complete=false
    fi
  done
  if ! $is_complete; then
    _install "$(IFS=,; printf '%s' "$*")"
    for extra in "$@"; do
      printf '%s\n' "$fingerprint" >"$(_stamp "$extra")"
    done
  fi
}
