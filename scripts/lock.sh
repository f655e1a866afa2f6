#!/usr/bin/env bash
# Writes the two lock files, with the newest versions that setup.py allows and their hashes:
# requirements.lock for the packages in the image, and .github/release.lock for the tools that build
# a release.
#
#   bash scripts/lock.sh
#
# Environment variables: PYTHON, the Python to use.
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

UV=uv==0.13.9

# lock FILE SOURCE: write a lock without comments that mention this machine or its package index.
lock() {
  "$WORK/tools/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.10 \
    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
    --output-file "$1" "$2"
}

no_arguments "$@"
cd "$ROOT"
PYTHON=$(_choose_python)
must "$PYTHON could not make an environment." \
  "Making an environment for uv" "$PYTHON" -m venv "$WORK/tools"
must "uv could not be installed." "Installing $UV" \
  "$WORK/tools/bin/python" -m pip install --quiet --progress-bar off "$UV"
must "The image's packages could not be resolved." "Locking what the image runs with" \
  lock requirements.lock setup.py
must "The build tools could not be resolved." "Locking what builds a release" \
  lock .github/release.lock .github/release.in
printf '\nThe locks are current (%s s). Commit them.\n' "$SECONDS"
