#!/usr/bin/env bash
# Builds the image, checks its settings, and runs spec, check and read in it as Airbyte does. Check
# and read use the sandbox on this machine.
#
#   bash scripts/check_image.sh
#
# If a Docker engine runs, it builds airbyte/source-truto-segments:dev. Otherwise, on Linux and as
# root, it uses buildah and a base image that debootstrap makes once and that is kept in
# ~/.cache/source-truto-segments, which you can delete at any time.
# Environment variables:
#   BASE_IMAGE        the base image to build on
#   STORAGE_DRIVER    the driver for buildah's storage, such as vfs, if its own choice fails
#   PYTHON            the Python to use for the sandbox
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

NAME=source-truto-segments
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/$NAME
# Its Python is 3.11, as in Airbyte's base image.
DEBIAN=bookworm
DEBIAN_IMAGE=localhost/$DEBIAN-python:1
CONTAINER=
SANDBOX=

end() {
  if [ -n "$SANDBOX" ]; then
    kill "$SANDBOX" 2>/dev/null || true
  fi
  if [ -n "$CONTAINER" ]; then
    in_storage rm "$CONTAINER" >/dev/null 2>&1 || true
  fi
  _clean_up
}

# expect NAME EXPECTED ACTUAL: fail unless they are equal.
expect() {
  [ "$2" = "$3" ] || fail "$1 should be \"$2\", but is \"$3\"."
  printf '  %s: %s\n' "$1" "${3:-none}"
}

# Run buildah with a separate storage, apart from the images of this machine.
in_storage() {
  buildah --root "$CACHE/storage" --runroot "$CACHE/run" "$@"
}

choose_engine() {
  if docker info >/dev/null 2>&1; then
    ENGINE=docker
    IMAGE=airbyte/$NAME:dev
  elif [ "$(uname -s)" = Linux ] && [ "$(id -u)" -eq 0 ] && command -v buildah >/dev/null; then
    printf 'No Docker engine runs; using buildah.\n'
    ENGINE=buildah
    IMAGE=localhost/$NAME:dev
    # It needs no namespaces, and the image uses this machine's network.
    export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
    mkdir -p "$CACHE"
    # A killed run may have left containers.
    in_storage rm --all >/dev/null 2>&1 || true
  else
    fail "No Docker engine runs. Start Docker; or, on Linux and as root, install buildah and debootstrap (Debian and Ubuntu: apt-get install buildah debootstrap)."
  fi
}

# Make the base image for buildah, unless it exists or BASE_IMAGE is set.
prepare_base() {
  local rootfs=$CACHE/rootfs mirror=
  if [ -n "${BASE_IMAGE:-}" ]; then
    return
  fi
  BASE_IMAGE=$DEBIAN_IMAGE
  if in_storage inspect --type image "$DEBIAN_IMAGE" >/dev/null 2>&1; then
    return
  fi
  command -v debootstrap >/dev/null || fail "debootstrap is not installed, which makes the base image. Install it (Debian and Ubuntu: apt-get install debootstrap), or set BASE_IMAGE to an image that buildah can pull."
  # A killed run may have left the folder, with what debootstrap mounts in it.
  umount "$rootfs/proc" "$rootfs/sys" 2>/dev/null || true
  rm -rf --one-file-system "$rootfs"
  # The mirror that apt uses here.
  if command -v apt-get >/dev/null; then
    mirror=$(apt-get indextargets --format "\$(REPO_URI) \$(RELEASE) \$(COMPONENT)" 2>/dev/null |
      awk -v release="$DEBIAN" '$2 == release && $3 == "main" && !seen { print $1; seen = 1 }')
  fi
  must "The base image could not be made: debootstrap failed." \
    "Making a base image of Debian with Python (a few minutes, once)" \
    debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
    "$DEBIAN" "$rootfs" ${mirror:+"$mirror"}
  rm -rf "$rootfs"/var/cache/apt/archives/*.deb "$rootfs"/var/lib/apt/lists/*
  CONTAINER=$(in_storage from scratch)
  must "buildah could not copy the base image." "Copying it into buildah's storage" \
    in_storage add --quiet "$CONTAINER" "$rootfs" /
  must "buildah could not commit the base image." "Committing it" \
    in_storage commit --quiet --rm "$CONTAINER" "$DEBIAN_IMAGE"
  CONTAINER=
  rm -rf "$rootfs"
}

# Write the build's two secrets: how pip reaches the package index here, and the certificates. Leave
# out paths of this machine, which mean nothing in the image.
write_secrets() {
  mkdir -m 700 "$WORK/secrets"
  : >"$WORK/secrets/ca_bundle"
  "$VENV_PYTHON" -m pip config list | "$VENV_PYTHON" -c '
import ast, os, pathlib, shutil, sys

folder = pathlib.Path(sys.argv[1])
# The environment comes last: global.index-url=..., install.index-url=..., :env:.index-url=....
settings = {}
for line in sorted(sys.stdin, key=lambda line: line.startswith(":env:")):
    name, _, value = line.partition("=")
    settings[name.rpartition(".")[2].replace("default-", "")] = str(ast.literal_eval(value.strip()))
lines = ["[global]"]
certificates = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE")
if certificates and os.path.isfile(certificates):
    shutil.copy(certificates, folder / "ca_bundle")
    lines.append("cert = /run/secrets/ca_bundle")
for key in ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries"):
    values = [value for value in settings.get(key, "").split() if not value.startswith("file:")]
    if values:
        lines.append(key + " = " + " ".join(values))
(folder / "pip_conf").write_text("\n".join(lines) + "\n")
' "$WORK/secrets"
}

build() {
  local variable options=(--tag "$IMAGE")
  options+=(--secret "id=pip_conf,src=$WORK/secrets/pip_conf")
  options+=(--secret "id=ca_bundle,src=$WORK/secrets/ca_bundle")
  if [ -n "${BASE_IMAGE:-}" ]; then
    options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
  fi
  # These settings apply to the build only, not to the image.
  for variable in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
    if [ -n "${!variable:-}" ]; then
      options+=(--build-arg "$variable")
    fi
  done
  if [ "$ENGINE" = docker ]; then
    DOCKER_BUILDKIT=1 docker build "${options[@]}" "$ROOT"
  else
    # Only the previous run's image and stages have no name now: remove them.
    in_storage bud "${options[@]}" "$ROOT" && in_storage rmi --prune --force
  fi
}

# setting TEMPLATE: print a part of the image's configuration.
setting() {
  if [ "$ENGINE" = docker ]; then
    docker image inspect --format "{{with .Config}}$1{{end}}" "$IMAGE"
  else
    in_storage inspect --type image --format "{{with .OCIv1.Config}}$1{{end}}" "$IMAGE"
  fi
}

# in_image COMMAND...: run a command in the image instead of its entry point.
in_image() {
  if [ "$ENGINE" = docker ]; then
    docker run --rm --network host --volume "$WORK/config:/config:ro" --entrypoint "$1" "$IMAGE" \
      "${@:2}"
  else
    in_storage run --volume "$WORK/config:/config:ro" "$CONTAINER" -- "$@"
  fi
}

# connector COMMAND...: run the connector by the image's entry point. Keep stdout apart from stderr,
# as it must contain only messages.
connector() {
  # shellcheck disable=SC2086
  in_image $ENTRYPOINT "$@" >"$WORK/$1.jsonl" || { cat "$WORK/$1.jsonl" && false; }
}

# Start the sandbox, and write the files for check and read; set SEGMENTS to the number of segments.
start_sandbox() {
  mkfifo "$WORK/ready"
  (cd "$ROOT" && exec "$VENV_PYTHON" - "$WORK/config") >"$WORK/ready" <<'PYTHON' &
import json, pathlib, sys, threading

from sandbox import Sandbox, demo_environment
from scripts._common import segments_of

folder = pathlib.Path(sys.argv[1])
modes = {"sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}
stream = {"name": "segments", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}
(folder / "catalog.json").write_text(json.dumps({"streams": [{"stream": stream, **modes}]}))
with Sandbox(demo_environment()) as sandbox:
    (folder / "config.json").write_text(json.dumps(sandbox.config))
    accounts = sandbox.environment.accounts
    print(sum(1 for account in accounts for _ in segments_of(account)), flush=True)
    threading.Event().wait()
PYTHON
  SANDBOX=$!
  read -r SEGMENTS <"$WORK/ready" || fail "The sandbox did not start; see above."
}

# expect_lines NAME EXPECTED PATTERN COMMAND: compare the number of matching lines in its output.
expect_lines() {
  expect "$1" "$2" "$(grep -cE "$3" "$WORK/$4.jsonl" || true)"
}

no_arguments "$@"
choose_engine
trap end EXIT
prepare demo
# The image's user, who is not the one that runs this script, has to read these folders.
chmod 755 "$WORK"
mkdir -m 755 "$WORK/config"
[ "$ENGINE" = docker ] || prepare_base
write_secrets
must "The image could not be built." "Building the image (a few minutes the first time)" build
[ "$ENGINE" = docker ] || CONTAINER=$(in_storage from --pull-never "$IMAGE")

printf '\nThe image %s on %s\n' "$IMAGE" "${BASE_IMAGE:-the base image of the Dockerfile}"
ENTRYPOINT=$(setting '{{range .Entrypoint}}{{.}} {{end}}' | sed 's/ *$//')
ENVIRONMENT=$(setting '{{range .Env}}{{println .}}{{end}}')
expect "name" "airbyte/$NAME" "$(setting '{{index .Labels "io.airbyte.name"}}')"
expect "version" "$(cat "$ROOT/source_truto_segments/VERSION")" \
  "$(setting '{{index .Labels "io.airbyte.version"}}')"
expect "working directory" /airbyte/integration_code "$(setting '{{.WorkingDir}}')"
expect "user" airbyte "$(setting '{{.User}}')"
expect "user ID" 1000 "$(in_image id -u)"
expect "AIRBYTE_ENTRYPOINT" "$ENTRYPOINT" "$(sed -n 's/^AIRBYTE_ENTRYPOINT=//p' <<<"$ENVIRONMENT")"
expect "settings of this machine" "" "$(grep -iE '^(PIP_|[A-Z]+_PROXY=)' <<<"$ENVIRONMENT" || true)"
expect "secrets of the build" "" \
  "$(in_image sh -c 'ls /run/secrets/pip_conf /run/secrets/ca_bundle 2>/dev/null || true')"

start_sandbox
must "The image's spec failed." "Running spec" connector spec
expect_lines "messages with the spec" 1 '^\{"type":"SPEC"' spec
must "The image's check failed." "Running check" connector check --config /config/config.json
expect_lines "messages that the check succeeded" 1 '"status":"SUCCEEDED"' check
must "The image's read failed." "Running read" \
  connector read --config /config/config.json --catalog /config/catalog.json
expect_lines "segments" "$SEGMENTS" '^\{"type":"RECORD"' read
printf '\nThe image is as it should be (%s s).\n' "$SECONDS"
