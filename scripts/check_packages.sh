#!/usr/bin/env bash
# Builds the source distribution and the wheel, and compares the wheel's files with the connector's.
# Then installs both in a new environment for each Python from 3.10 to 3.13 that this machine has, and
# runs `source-truto-segments spec` there. Takes half a minute for each Python.
#
#   bash scripts/check_packages.sh
#
# Looks for Pythons on the path and in ~/.pyenv, and lists the missing ones.
# Environment variables: PYTHON, the only Python to use.
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

PYTHONS=()
TOOLS=$WORK/tools/bin/python

# Build from a copy, as building leaves files in the folder: first the source distribution, then the
# wheel from it, which shows that the source distribution is complete.
build() {
  mkdir "$WORK/source" &&
    (cd "$ROOT" && tar -cf - --exclude './.*' --exclude __pycache__ --exclude '*.egg-info' \
      --exclude ./build --exclude ./dist .) | tar -xf - -C "$WORK/source" &&
    "$TOOLS" -m build --outdir "$WORK/dist" "$WORK/source"
}

# Fail unless the wheel has every file of the connector, and no other.
compare_files() {
  "$TOOLS" - "$WHEEL" "$WORK/source" <<'PYTHON'
import pathlib, sys, zipfile

source = pathlib.Path(sys.argv[2])
files = {name for name in zipfile.ZipFile(sys.argv[1]).namelist() if ".dist-info/" not in name}
package = source / "source_truto_segments"
expected = {path.relative_to(source).as_posix() for path in package.rglob("*") if path.is_file()}
if expected != files:
    sys.exit(f"Missing: {sorted(expected - files)}. Not expected: {sorted(files - expected)}.")
PYTHON
}

# Run spec, which has to print one message. Not in the project's folder, where Python would find the
# package even if it is not installed.
run_spec() {
  cd "$WORK" && environment/bin/source-truto-segments spec | environment/bin/python -c '
import json, sys
specs = [message["spec"] for message in map(json.loads, sys.stdin) if message["type"] == "SPEC"]
if len(specs) != 1 or "token" not in specs[0]["connectionSpecification"]["properties"]:
    sys.exit("source-truto-segments spec did not print one SPEC message that has the token.")
'
}

# try_packages PYTHON: try the wheel in an empty environment, then the source distribution instead.
try_packages() {
  local environment=$WORK/environment install
  install=("$TOOLS" -m pip --python "$environment/bin/python" install --quiet --no-compile)
  rm -rf "$environment" &&
    "$1" -m venv --without-pip "$environment" &&
    "${install[@]}" "$WHEEL" && run_spec &&
    "${install[@]}" --force-reinstall --no-deps "$WORK"/dist/*.tar.gz && run_spec
}

no_arguments "$@"
if [ -n "${PYTHON:-}" ]; then
  PYTHONS=("$(_choose_python)")
else
  for version in 3.10 3.11 3.12 3.13; do
    found=$(find_python "$version")
    if [ -n "$found" ]; then
      PYTHONS+=("$found")
    else
      printf 'Python %s was not found, and is not checked.\n' "$version"
    fi
  done
  [ ${#PYTHONS[@]} -gt 0 ] || _choose_python
fi

must "${PYTHONS[0]} could not make an environment." \
  "Making an environment for the build tools" "${PYTHONS[0]}" -m venv "$WORK/tools"
# Upgrade pip as well: the oldest Python's pip cannot install for the newest Python.
must "The build tools could not be installed." "Installing pip and build" \
  "$TOOLS" -m pip install --quiet --progress-bar off --upgrade pip build
must "The packages could not be built." "Building the source distribution and the wheel" build
WHEEL=$(ls "$WORK"/dist/*.whl)
must "The wheel is not complete; see package_data in setup.py." "Comparing the wheel's files" \
  compare_files
for python in "${PYTHONS[@]}"; do
  version=$("$python" --version 2>&1)
  must "A package does not install or does not run on $version." \
    "$version: the wheel and the source distribution" try_packages "$python"
done
printf '\nBoth packages install and run (%s s).\n' "$SECONDS"
