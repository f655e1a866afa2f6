#!/usr/bin/env bash
# Builds the image, looks at its settings, and runs it as Airbyte does: spec, check and read, the
# latter two against the sandbox on this machine.
#
#   bash scripts/check_image.sh
#
# With Docker where its engine runs; the image is then airbyte/source-truto-segments:dev. Otherwise,
# on Linux and as root, with buildah, on a base of its own that debootstrap makes once. That base is
# kept in ~/.cache/source-truto-segments, which can be removed at any time.
# Heeded:
#   BASE_IMAGE        build on this base image
#   STORAGE_DRIVER    the kind of buildah's storage, where the one that it finds fails (vfs)
#   PYTHON            the Python to use for the sandbox
set -euo pipefail
# shellcheck source=scripts/_common.sh
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/source-truto-segments
# Debian 12: its Python is 3.11, like that of Airbyte's base.
DEBIAN=bookworm
DEBIAN_IMAGE=localhost/$DEBIAN-python:1
DEBIAN_PACKAGES=python3,python3-pip,python3-venv,ca-certificates

ENGINE=
IMAGE=
CONTAINER=
SANDBOX=
FOLDER=

end() {
  if [ -n "$SANDBOX" ]; then
    kill "$SANDBOX" 2>/dev/null || true
    wait "$SANDBOX" 2>/dev/null || true
  fi
  if [ -n "$CONTAINER" ]; then
    in_storage rm "$CONTAINER" >/dev/null 2>&1 || true
  fi
  if [ -n "$FOLDER" ]; then
    rm -rf "$FOLDER"
  fi
  _clean_up
}

# expect WHAT WANTED FOUND: says that they are equal, or fails.
expect() {
  if [ "$2" != "$3" ]; then
    fail "$1 should be \"$2\", but is \"$3\"."
  fi
  printf '  %s: %s\n' "$1" "${3:-none}"
}

# must TODO TEXT COMMAND...: a long command that has to succeed; if it fails, TODO says what to do.
must() {
  local todo=$1
  shift
  if ! quietly "$@"; then
    tail -n 30 "$LOG" >&2
    fail "$todo The last lines of its output are above."
  fi
}

# buildah with a storage of its own: what it makes is in one folder, apart from the machine's images.
# It finds out by itself what kind of storage this machine can have, unless it is told.
in_storage() {
  buildah --root "$CACHE/storage" --runroot "$CACHE/run" \
    ${STORAGE_DRIVER:+--storage-driver "$STORAGE_DRIVER"} "$@"
}

choose_engine() {
  if docker info >/dev/null 2>&1; then
    ENGINE=docker
    IMAGE=airbyte/source-truto-segments:dev
    return
  fi
  if [ "$(uname -s)" != Linux ]; then
    fail "No Docker engine runs. Start or install one, then run this again."
  fi
  if ! command -v buildah >/dev/null 2>&1; then
    fail "No Docker engine runs, and buildah is not installed. Start or install Docker; or install buildah and debootstrap (Debian and Ubuntu: apt-get install buildah debootstrap)."
  fi
  if [ "$(id -u)" -ne 0 ]; then
    fail "No Docker engine runs, and without one this needs to be run as root (with buildah). Start Docker, or run this as root."
  fi
  ENGINE=buildah
  IMAGE=localhost/source-truto-segments:dev
  # This kind needs no namespaces, and leaves the image the addresses of this machine.
  export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
  mkdir -p "$CACHE"
}

# The mirror that this machine's apt already takes Debian from; nothing if there is none.
debian_mirror() {
  if command -v apt-get >/dev/null 2>&1; then
    apt-get indextargets --format "\$(REPO_URI) \$(RELEASE) \$(COMPONENT)" 2>/dev/null |
      awk -v release="$DEBIAN" '$2 == release && $3 == "main" && !seen { print $1; seen = 1 }'
  fi
}

# Makes the base for buildah, unless it is there.
prepare_base() {
  local rootfs=$CACHE/rootfs container mirror
  # Left by an interrupted run.
  in_storage rm --all >/dev/null 2>&1 || true
  if [ -n "${BASE_IMAGE:-}" ] || in_storage inspect --type image "$DEBIAN_IMAGE" >/dev/null 2>&1; then
    BASE_IMAGE=${BASE_IMAGE:-$DEBIAN_IMAGE}
    return
  fi
  BASE_IMAGE=$DEBIAN_IMAGE
  if ! command -v debootstrap >/dev/null 2>&1; then
    fail "debootstrap is not installed, which makes the base image for buildah. Install it (Debian and Ubuntu: apt-get install debootstrap), or set BASE_IMAGE to an image that buildah can pull."
  fi
  # What an interrupted run may have left, with what debootstrap mounts in it.
  umount "$rootfs/proc" "$rootfs/sys" 2>/dev/null || true
  rm -rf --one-file-system "$rootfs"
  mirror=$(debian_mirror)
  must "The base image could not be made: debootstrap failed." \
    "Making a base image of Debian with Python (a few minutes, once)" \
    debootstrap --variant=minbase --include="$DEBIAN_PACKAGES" "$DEBIAN" "$rootfs" \
    ${mirror:+"$mirror"}
  rm -rf "$rootfs"/var/cache/apt/archives/*.deb "$rootfs"/var/lib/apt/lists/*
  container=$(in_storage from scratch)
  must "The base image could not be made: buildah could not take the folder in." \
    "Adding it to buildah's storage" in_storage add --quiet "$container" "$rootfs" /
  must "The base image could not be made: buildah could not commit it." \
    "Committing it" in_storage commit --quiet --rm "$container" "$DEBIAN_IMAGE"
  rm -rf "$rootfs"
}

# How pip reaches the package index from here, for the build to do likewise: as files that are
# mounted while pip runs. Paths of this machine mean nothing there, but for the certificates.
write_secrets() {
  : >"$FOLDER/secrets/ca_bundle"
  "$VENV_PYTHON" - "$FOLDER/secrets" <<'PYTHON'
import ast, os, pathlib, shutil, subprocess, sys

folder = pathlib.Path(sys.argv[1])
listed = subprocess.run(
    [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
)
settings = {}
ranks = {"global": 0, "install": 1, ":env:": 2}
for line in sorted(listed.stdout.splitlines(), key=lambda line: ranks.get(line.split(".")[0], -1)):
    name, _, value = line.partition("=")
    section, _, key = name.partition(".")
    if section in ranks:
        settings[key.lstrip(".")] = str(ast.literal_eval(value))
certificates = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE")
lines = ["[global]"]
if certificates and pathlib.Path(certificates).is_file():
    shutil.copy(certificates, folder / "ca_bundle")
    lines.append("cert = /run/secrets/ca_bundle")
for key in ("index-url", "extra-index-url", "find-links"):
    places = [place for place in settings.get(key, "").split() if place.startswith("http")]
    if places:
        lines.append(f"{key} = {' '.join(places)}")
for key in ("trusted-host", "proxy", "timeout", "default-timeout", "retries"):
    if key in settings:
        lines.append(f"{key} = {' '.join(settings[key].split())}")
(folder / "pip_conf").write_text("\n".join(lines) + "\n")
PYTHON
}

build() {
  local variable options
  options=(--secret "id=pip_conf,src=$FOLDER/secrets/pip_conf")
  options+=(--secret "id=ca_bundle,src=$FOLDER/secrets/ca_bundle")
  if [ -n "${BASE_IMAGE:-}" ]; then
    options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
  fi
  # Docker and buildah know these as settings of the build, which do not become the image's.
  for variable in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
    if [ -n "${!variable:-}" ]; then
      options+=(--build-arg "$variable")
    fi
  done
  if [ "$ENGINE" = docker ]; then
    DOCKER_BUILDKIT=1 docker build "${options[@]}" --tag "$IMAGE" "$ROOT"
    return
  fi
  if [ "$BASE_IMAGE" = "$DEBIAN_IMAGE" ]; then
    options+=(--pull-never)
  fi
  # Layers are for the next run to use again. Other kinds of storage hold each as a whole copy.
  # The first stage by itself is built only to give it a name: its layers are then no leftovers. All
  # other images without a name are, for nothing else is in this storage.
  if in_storage info | grep -q '"GraphDriverName": "overlay"'; then
    options+=(--layers)
    in_storage bud "${options[@]}" --target build --tag "$IMAGE-build" "$ROOT" || return
  fi
  in_storage bud "${options[@]}" --tag "$IMAGE" "$ROOT" && in_storage rmi --prune
}

# setting TEMPLATE: a part of the image's configuration.
setting() {
  if [ "$ENGINE" = docker ]; then
    docker image inspect --format "{{with .Config}}$1{{end}}" "$IMAGE"
  else
    in_storage inspect --type image --format "{{with .OCIv1.Config}}$1{{end}}" "$IMAGE"
  fi
}

# in_image COMMAND...: runs a command in the image, in place of its entry point.
in_image() {
  if [ "$ENGINE" = docker ]; then
    local command=$1
    shift
    docker run --rm --network host --volume "$FOLDER/config:/config:ro" --entrypoint "$command" \
      "$IMAGE" "$@"
  else
    in_storage run --volume "$FOLDER/config:/config:ro" "$CONTAINER" -- "$@"
  fi
}

# connector COMMAND...: runs the connector as Airbyte does, by what the image says is its entry
# point, which is one word or several.
connector() {
  # shellcheck disable=SC2086
  in_image $ENTRYPOINT "$@"
}

# Apart from what is said on stderr: stdout must be nothing but messages.
connector_into() {
  local file=$1
  shift
  connector "$@" >"$file"
}

# messages FILE EXPRESSION: a Python expression over `m`, the messages in the file by their type.
messages() {
  "$VENV_PYTHON" -c '
import collections, json, sys
m = collections.defaultdict(list)
for line in open(sys.argv[1], encoding="utf-8"):
    message = json.loads(line)
    m[message["type"]].append(message)
sandbox = json.load(open(sys.argv[2], encoding="utf-8"))
print(eval(sys.argv[3]))
' "$1" "$FOLDER/sandbox.json" "$2"
}

# say COMMAND ARGUMENTS...: one command of the connector; its messages are then in $FOLDER/COMMAND.
say() {
  if ! quietly "Running $1" connector_into "$FOLDER/$1" "$@"; then
    tail -n 20 "$FOLDER/$1" "$LOG" >&2
    fail "The image's $1 failed; the last lines of its output are above."
  fi
}

start_sandbox() {
  local waited=0
  # In the folder of the project, where the sandbox is.
  (cd "$ROOT" && exec "$VENV_PYTHON" -m sandbox --json) >"$FOLDER/sandbox.json" 2>"$FOLDER/log" &
  SANDBOX=$!
  until [ -s "$FOLDER/sandbox.json" ]; do
    if [ "$waited" -ge 100 ] || ! kill -0 "$SANDBOX" 2>/dev/null; then
      cat "$FOLDER/log" >&2
      fail "The sandbox did not start; what it said is above."
    fi
    sleep 0.2
    waited=$((waited + 1))
  done
  "$VENV_PYTHON" - "$FOLDER" <<'PYTHON'
import json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
sandbox = json.loads((folder / "sandbox.json").read_text())
config = {
    "token": sandbox["token"],
    "integrated_account_id": sandbox["accounts"][0]["id"],
    "additional_accounts": {
        "mode": "listed",
        "ids": [account["id"] for account in sandbox["accounts"][1:]],
    },
    "api_url": sandbox["url"],
}
stream = {"name": "segments", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}
catalog = {
    "streams": [
        {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}
    ]
}
(folder / "config" / "config.json").write_text(json.dumps(config))
(folder / "config" / "catalog.json").write_text(json.dumps(catalog))
PYTHON
}

size() {
  if [ "$ENGINE" = docker ]; then
    docker image inspect --format '{{.Size}}' "$1" | awk '{ printf "%.0f MB\n", $1 / 1e6 }'
  else
    in_storage images --format '{{.Size}}' "$1"
  fi
}

no_arguments "$@"
choose_engine
trap end EXIT
prepare demo
# Open to the image's user, who is another one than who runs this; the secrets are not.
FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/check-image.XXXXXX")
chmod 755 "$FOLDER"
mkdir -m 755 "$FOLDER/config"
mkdir -m 700 "$FOLDER/secrets"

if [ "$ENGINE" = buildah ]; then
  printf 'No Docker engine runs; using buildah.\n'
  prepare_base
fi
write_secrets
must "The image could not be built." "Building the image (a few minutes the first time)" build
if [ "$ENGINE" = buildah ]; then
  CONTAINER=$(in_storage from --pull-never "$IMAGE")
fi

printf '\nThe image %s on %s\n' "$IMAGE" "${BASE_IMAGE:-the base that the Dockerfile names}"
expect "label io.airbyte.name" airbyte/source-truto-segments \
  "$(setting '{{index .Labels "io.airbyte.name"}}')"
expect "label io.airbyte.version" "$(cat "$ROOT/source_truto_segments/VERSION")" \
  "$(setting '{{index .Labels "io.airbyte.version"}}')"
expect "working directory" /airbyte/integration_code "$(setting '{{.WorkingDir}}')"
expect "user" airbyte "$(setting '{{.User}}')"
expect "user's number" 1000 "$(in_image id -u)"
ENTRYPOINT=$(setting '{{range .Entrypoint}}{{.}} {{end}}' | sed 's/ *$//')
expect "AIRBYTE_ENTRYPOINT, which is the entry point" "$ENTRYPOINT" \
  "$(setting '{{range .Env}}{{println .}}{{end}}' | sed -n 's/^AIRBYTE_ENTRYPOINT=//p')"
if setting '{{range .Env}}{{println .}}{{end}}' |
  grep -iE '^(PIP_(CERT|CONFIG_FILE|INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|PROXY)|[A-Z]+_PROXY)='; then
  fail "The setting above is this machine's, and must not be in the image."
fi
expect "secrets left from the build" "" \
  "$(in_image sh -c 'ls /run/secrets/pip_conf /run/secrets/ca_bundle 2>/dev/null || true')"
printf '  size: %s' "$(size "$IMAGE")"
if [ -n "${BASE_IMAGE:-}" ]; then
  printf ', of which the base is %s' "$(size "$BASE_IMAGE")"
fi
printf '\n\n'

start_sandbox
say spec
expect "SPEC messages" 1 "$(messages "$FOLDER/spec" 'len(m["SPEC"])')"
say check --config /config/config.json
expect "CONNECTION_STATUS" SUCCEEDED \
  "$(messages "$FOLDER/check" '" ".join(s["connectionStatus"]["status"] for s in m["CONNECTION_STATUS"])')"
say read --config /config/config.json --catalog /config/catalog.json
expect "RECORD messages, which the sandbox's segments are" \
  "$(messages "$FOLDER/read" 'sum(account["segments"] for account in sandbox["accounts"])')" \
  "$(messages "$FOLDER/read" 'len(m["RECORD"])')"
expect "accounts that were read as a whole" \
  "$(messages "$FOLDER/read" 'len(sandbox["accounts"])')" \
  "$(messages "$FOLDER/read" 'sum(account["segments"] == sum(r["record"]["data"]["integrated_account_id"] == account["id"] for r in m["RECORD"]) for account in sandbox["accounts"])')"

printf '\nThe image is as it should be (%s s).\n' "$SECONDS"
if [ "$ENGINE" = docker ]; then
  printf 'To run it: docker run --rm %s spec\n' "$IMAGE"
fi
