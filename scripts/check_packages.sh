#!/usr/bin/env bash
# Builds the wheel and the source distribution, looks into the wheel, installs each of the two in an
# empty environment on each Python from 3.10 to 3.13 that this machine has, and runs
# `source-truto-segments spec` there.
#
#   bash scripts/check_packages.sh                          # about a minute for each Python
#   bash scripts/check_packages.sh --python python3.12      # on this Python only
#
# Pythons are looked for on the path and in ~/.pyenv. Which ones were not found is said at the end.
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

FOLDER=
PYTHONS=()
MISSING=
TRIED=

end() {
  if [ -n "$FOLDER" ]; then
    rm -rf "$FOLDER"
  fi
  _clean_up
}

# find_python MINOR: prints a Python 3.MINOR that can make environments; nothing if there is none.
find_python() {
  local candidate path
  for candidate in "python3.$1" "$HOME"/.pyenv/versions/3."$1".*/bin/python; do
    if path=$(command -v "$candidate") && [ -z "$(_objection "$path")" ]; then
      printf '%s\n' "$path"
      return
    fi
  done
}

# must TODO TEXT COMMAND...: a long command that has to succeed; if it fails, TODO says what to do.
# A function that is run by it chains its commands with &&: `set -e` does not hold in there.
must() {
  local todo=$1
  shift
  if quietly "$@"; then
    return
  fi
  tail -n 20 "$LOG" >&2
  if grep -qiE "$NO_CONNECTION" "$LOG"; then
    todo="The package index could not be reached. Check the network (and PIP_INDEX_URL, PIP_CERT and the proxy, if set), then run this again."
  fi
  fail "$todo The last lines of the output are above."
}

# Builds from a copy: building leaves files behind, and what is ignored must not count.
build() {
  mkdir "$FOLDER/source" &&
    (cd "$ROOT" && tar -cf - --exclude './.*' --exclude __pycache__ --exclude '*.egg-info' \
      --exclude ./build --exclude ./dist .) | tar -xf - -C "$FOLDER/source" &&
    # The source distribution first, and the wheel from that: so it is known to be whole.
    "$FOLDER/tools/bin/python" -m build --outdir "$FOLDER/dist" "$FOLDER/source"
}

# What must be in the wheel, and nothing else.
look_into_wheel() {
  "$FOLDER/tools/bin/python" - "$1" "$FOLDER/source" <<'PYTHON'
import pathlib, sys, zipfile

wheel, source = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
package = source / "source_truto_segments"
wanted = {
    path.relative_to(source).as_posix() for path in package.rglob("*") if path.is_file()
}
for name in ("VERSION", "py.typed", "run.py", "spec.json", "schemas/segments.json"):
    if f"source_truto_segments/{name}" not in wanted:
        sys.exit(f"source_truto_segments/{name} is not there to be packaged.")
if wanted - held:
    sys.exit(f"The wheel lacks {', '.join(sorted(wanted - held))}. See package_data in setup.py.")
if held - wanted:
    sys.exit(f"The wheel holds what is no part of the connector: {', '.join(sorted(held - wanted))}.")
print(f"  {wheel.name}: {len(held)} files, {wheel.stat().st_size / 1000:.0f} kB; none missing or extra")
PYTHON
}

# try_package PYTHON PACKAGE: installs it in an empty environment, and runs it there.
try_package() {
  local environment=$FOLDER/environment
  rm -rf "$environment" &&
    "$1" -m venv --without-pip "$environment" &&
    # Without compiling everything beforehand, most of which is never imported here.
    "$FOLDER/tools/bin/python" -m pip --python "$environment/bin/python" install --quiet \
      --progress-bar off --no-compile "$2" &&
    # Not from the project's folder, where Python would find the package uninstalled.
    cd "$FOLDER" &&
    "$environment/bin/source-truto-segments" spec >"$FOLDER/spec" &&
    "$environment/bin/python" -c '
import json, sys
messages = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
specs = [message["spec"] for message in messages if message["type"] == "SPEC"]
if len(specs) != 1 or "token" not in specs[0]["connectionSpecification"]["properties"]:
    sys.exit("source-truto-segments spec did not answer with one SPEC message that has the token.")
' "$FOLDER/spec"
}

case "${1:-}" in
  --python | --python=*)
    if [ "$1" = --python ]; then
      chosen=${2:-}
      [ $# -ne 2 ] || shift
    else
      chosen=${1#--python=}
    fi
    if [ $# -ne 1 ] || [ -z "$chosen" ]; then
      fail "--python takes one Python, for example: --python python3.12"
    fi
    objection=$(_objection "$chosen")
    if [ -n "$objection" ]; then
      fail "$chosen $objection. Name another Python."
    fi
    PYTHONS=("$chosen")
    ;;
  *)
    no_arguments "$@"
    for minor in 10 11 12 13; do
      found=$(find_python "$minor")
      if [ -n "$found" ]; then
        PYTHONS+=("$found")
      else
        MISSING="$MISSING 3.$minor"
      fi
    done
    if [ ${#PYTHONS[@]} -eq 0 ]; then
      fail "No Python from 3.10 to 3.13 with pip and venv was found. Install one, or name it with --python."
    fi
    ;;
esac

trap end EXIT
FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/check-packages.XXXXXX")

must "The Python named above could not make an environment." \
  "Making an environment for the build tools" "${PYTHONS[0]}" -m venv "$FOLDER/tools"
# pip as well: the one in the oldest Python cannot install for the newest.
must "The build tools could not be installed." "Installing pip and build" \
  "$FOLDER/tools/bin/python" -m pip install --quiet --progress-bar off --upgrade pip build
must "The packages could not be built; correct what is named above." \
  "Building the source distribution and the wheel" build
WHEEL=$(ls "$FOLDER"/dist/*.whl)
SDIST=$(ls "$FOLDER"/dist/*.tar.gz)
if ! look_into_wheel "$WHEEL"; then
  fail "The wheel is not as it should be; see above."
fi

for python in "${PYTHONS[@]}"; do
  version=$("$python" --version 2>&1)
  for package in "$WHEEL" "$SDIST"; do
    must "The package does not install or does not run on $version." \
      "$version: $(basename "$package")" try_package "$python" "$package"
  done
  TRIED="$TRIED${TRIED:+,}${version#Python}"
done

if [ -n "$MISSING" ]; then
  printf '\nNot tried, because this machine does not have them: Python%s.\n' "$MISSING"
fi
printf '\nBoth packages install and run on Python%s (%s s).\n' "$TRIED" "$SECONDS"
