# The other scripts source this file: arguments, long commands, and the virtual environment.
# Needs only bash 3.2 and one of the Pythons below.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
SCRIPT=scripts/$(basename "$0")
# Supported Pythons, the most used first.
VERSIONS="3.12 3.11 3.10 3.13"
VENV=$ROOT/.venv
# Requirements to install in addition to the extras.
PACKAGES=()
WORK=$(mktemp -d "${TMPDIR:-/tmp}/truto-segments.XXXXXX")
LOG=$WORK/log
CHILD=

# The settings of another project must not affect this environment.
unset PYTHONPATH PYTHONHOME PYTHONSAFEPATH
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

fail() {
  printf '\n%s: %s\n' "$SCRIPT" "$1" >&2
  exit 1
}

# For --help, print the comment at the head of the script, and end it.
offer_help() {
  case "${1:-}" in
    -h | --help) awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0" && exit 0 ;;
  esac
}

# Accept no arguments except --help.
no_arguments() {
  offer_help "$@"
  [ $# -eq 0 ] || fail "It takes no arguments (given: $*)."
}

_clean_up() {
  if [ -n "$CHILD" ]; then
    kill -- "-$CHILD" 2>/dev/null || true
    wait "$CHILD" 2>/dev/null || true
  fi
  rm -rf "$WORK"
}

_interrupted() {
  printf '\n%s: Interrupted. Run it again; a set-up that was not finished starts over.\n' "$SCRIPT" >&2
  exit "$1"
}
trap _clean_up EXIT
trap '_interrupted 129' HUP
trap '_interrupted 130' INT
trap '_interrupted 143' TERM

# quietly TEXT COMMAND...: run a long command with its output in $LOG, show how long it takes, and
# return its exit code. If COMMAND is a function, it has to join its commands with &&, as `set -e`
# does not apply there.
quietly() {
  local text=$1 started=$SECONDS shown=$SECONDS status=0
  shift
  printf '%s ...' "$text"
  # Run it in the background, so that a signal takes effect at once, and as a group, so that its
  # children end as well.
  set -m
  "$@" >"$LOG" 2>&1 </dev/null &
  CHILD=$!
  set +m
  while kill -0 "$CHILD" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - shown)) -ge 10 ]; then
      shown=$SECONDS
      printf ' %s s ...' $((SECONDS - started))
    fi
  done
  wait "$CHILD" || status=$?
  CHILD=
  if [ "$status" -eq 0 ]; then
    printf ' done in %s s\n' $((SECONDS - started))
  else
    printf ' failed after %s s\n' $((SECONDS - started))
  fi
  return "$status"
}

# must GUIDANCE TEXT COMMAND...: like quietly, but end the script on a failure, with the last lines of
# the log, and with GUIDANCE unless the network is the reason.
must() {
  local network='Max retries|connection broken|Could not fetch URL|ConnectionError|ConnectTimeout'
  network="$network|ReadTimeout|ProxyError|SSLError|Temporary failure in name resolution"
  quietly "${@:2}" && return
  tail -n 20 "$LOG" >&2
  if grep -qiE "$network" "$LOG"; then
    fail "The package index could not be reached; see above. Check the network (and PIP_INDEX_URL, PIP_CERT and the proxy, if set), then run this again."
  fi
  fail "$1 The last lines of the output are above."
}

# usable PYTHON VERSION...: succeed if it runs, has one of these versions and can create environments.
usable() {
  "$1" -c 'import ensurepip, sys, venv; sys.exit("%d.%d" % sys.version_info[:2] not in sys.argv[1:])' \
    "${@:2}" >/dev/null 2>&1 </dev/null
}

# find_python VERSION: print the path of a usable Python of this version, if there is one.
find_python() {
  local name path
  for name in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/python python3; do
    if path=$(command -v "$name") && usable "$path" "$1"; then
      printf '%s\n' "$path"
      return
    fi
  done
}

# Print the Python to create the environment with: $PYTHON, or the first usable one.
_choose_python() {
  local version found=${PYTHON:-}
  for version in $VERSIONS; do
    [ -n "$found" ] || found=$(find_python "$version")
  done
  # shellcheck disable=SC2086
  if [ -z "$found" ] || ! usable "$found" $VERSIONS; then
    fail "${PYTHON:+PYTHON=$PYTHON is not usable. }This needs a Python of version ${VERSIONS// / or } with the modules venv and ensurepip (on Debian and Ubuntu in a package of their own, such as python3.12-venv). Install one, or set PYTHON to the path of one."
  fi
  printf '%s\n' "$found"
}

# prepare EXTRA...: create $VENV with the connector and these extras, or keep an up-to-date one.
prepare() {
  local python version key extra lines installed=$VENV/.installed
  VENV_PYTHON=$VENV/bin/python
  version=$("${PYTHON:-$VENV_PYTHON}" --version 2>&1) || version=none
  # The file exists only after a complete installation. It contains the folder, because an environment
  # does not survive a move.
  # shellcheck disable=SC2086
  if ! { usable "$VENV_PYTHON" $VERSIONS && grep -qF "$version $ROOT " "$installed"; } 2>/dev/null; then
    python=$(_choose_python)
    version=$("$python" --version 2>&1)
    rm -rf "$VENV"
    must "$python could not make a virtual environment. Set PYTHON to another one." \
      "Making $(basename "$VENV") with $version" "$python" -m venv "$VENV"
    : >"$installed"
  fi
  key="$version $ROOT ${PACKAGES[*]-} $(cd "$ROOT" && cat setup.py pyproject.toml source_truto_segments/VERSION | cksum)"
  # The file has a line for each installed extra. In a substitution, bash 5.2 would replace a & in
  # the path.
  lines=
  for extra; do lines+="$key $extra"$'\n'; done
  if printf %s "$lines" | grep -qvxFf "$installed"; then
    mv "$installed" "$WORK/installed"
    must "pip could not install the packages." \
      "Installing the connector and its packages (one to two minutes the first time)" \
      "$VENV_PYTHON" -m pip install --quiet --progress-bar off \
      -e "${ROOT}[$(IFS=, && printf %s "$*")]" ${PACKAGES[@]+"${PACKAGES[@]}"}
    printf %s "$lines" | cat "$WORK/installed" - >"$installed"
  fi
}

# run_python ARGUMENT...: continue as the environment's Python, in the project's folder.
run_python() {
  _clean_up
  cd "$ROOT" || exit
  exec "$VENV_PYTHON" -X utf8 "$@"
}
