"""Run the connector through its public surface, and parse the messages that it emits."""

import json
import logging
import os
import socket
import ssl
import subprocess
import sysconfig
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest
from airbyte_cdk.models import (
    AirbyteMessage,
    AirbyteMessageSerializer,
    AirbyteStateMessageSerializer,
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteCatalogSerializer,
    Status,
)
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from sandbox import Account, Sandbox, vendors
from sandbox.protocol import configured_catalog, last_states, messages
from sandbox.protocol import streams as listed_streams
from source_truto_segments import SourceTrutoSegments
from source_truto_segments.run import BatchSource, Entrypoint
from source_truto_segments.streams import STREAMS
from source_truto_segments.sync.worker_pool import Clock
from source_truto_segments.truto import errors
from source_truto_segments.truto.errors import Resolution
from source_truto_segments.truto.responses import ErrorBody, Speaker

COMMAND = Path(sysconfig.get_path("scripts")) / "source-truto-segments"
ACCOUNT_ID = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"


class FakeClock(Clock):
    """A clock that advances in a wait, instead of waiting."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        del condition
        self.waits.append(seconds)
        self._now += seconds


@dataclass
class Result:
    """The messages of one command."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    failure: AirbyteTracedException | None = None
    exit_code: int | None = None
    waits: list[float] = field(default_factory=list)

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        key = "connectionStatus" if kind == "CONNECTION_STATUS" else kind.lower()
        return [message[key] for message in self.messages if message["type"] == kind]

    @property
    def records(self) -> list[dict[str, Any]]:
        """Return the data of the records of `segments`."""
        return self.records_of("segments")

    def records_of(self, stream: str) -> list[dict[str, Any]]:
        """Return the data of a stream's records."""
        return [record["data"] for record in self.of_type("RECORD") if record["stream"] == stream]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the records of `segments` without the columns of change data capture."""
        return [without_cdc(record) for record in self.records]

    @property
    def ids(self) -> list[str]:
        return [record["id"] for record in self.records]

    @property
    def states(self) -> list[dict[str, Any]]:
        return self.of_type("STATE")

    @property
    def last_state(self) -> list[dict[str, Any]]:
        """Return the last state of each stream, as Airbyte passes it to the next sync."""
        return last_states(self.states)

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Return the errors that were emitted, and the one that was raised."""
        emitted = [trace["error"] for trace in self.of_type("TRACE") if "error" in trace]
        if self.failure is None:
            return emitted
        failure_type = self.failure.failure_type.value
        return [*emitted, {"message": str(self.failure), "failure_type": failure_type}]

    @property
    def statuses(self) -> list[str]:
        """Return the statuses of `segments`."""
        return self.statuses_of("segments")

    def statuses_of(self, stream: str) -> list[str]:
        """Return the statuses of a stream, except those that report a rate limit."""
        statuses = [t["stream_status"] for t in self.of_type("TRACE") if "stream_status" in t]
        return [
            status["status"]
            for status in statuses
            if status["stream_descriptor"]["name"] == stream and not status.get("reasons")
        ]

    @property
    def rate_limited(self) -> list[dict[str, Any]]:
        """Return the statuses that report a rate limit."""
        statuses = [t["stream_status"] for t in self.of_type("TRACE") if "stream_status" in t]
        return [status for status in statuses if status.get("reasons")]

    @property
    def logs(self) -> list[str]:
        return [log["message"] for log in self.of_type("LOG")]


def account(vendor: str = "klaviyo", count: int = 25, **how: Any) -> Account:
    """Return an account of a vendor with some segments."""
    how.setdefault("segments", vendors.segments(vendor, count))
    return Account(id=ACCOUNT_ID, vendor=vendor, **how)


def config(sandbox: Sandbox, **fields: Any) -> dict[str, Any]:
    """Return the flat configuration for the sandbox's first account."""
    environment = sandbox.environment
    account_id = environment.accounts[0].id if environment.accounts else ACCOUNT_ID
    return {
        "token": environment.token,
        "integrated_account_id": account_id,
        "api_url": sandbox.url,
        **fields,
    }


def catalog(
    sync_mode: str = "full_refresh",
    schema: Mapping[str, Any] | None = None,
    streams: Sequence[str] = ("segments",),
) -> dict[str, Any]:
    """Return a configured catalog that selects streams, with all columns or those of a schema."""
    return configured_catalog(listed_streams(*streams, schema=schema), sync_mode)


ALL_STREAMS = STREAMS
ALL = {"mode": "all"}
Serve = Callable[..., Sandbox]
"""The fixture that starts sandboxes with accounts."""


def read(
    sandbox: Sandbox,
    *,
    configured: dict[str, Any] | None = None,
    state: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> Result:
    """Read in this process, with waits that take no time, and keep what came before a failure.

    Args:
        sandbox: The sandbox to read from.
        configured: The configured catalog; if None, the fields `streams` and `sync_mode` make one.
        state: The state that the sync begins with.
        fields: Fields of the configuration.
    """
    clock = FakeClock()
    result = _read(SourceTrutoSegments(clock), sandbox, configured, state, fields)
    result.waits = clock.waits
    return result


def read_in_real_time(
    sandbox: Sandbox, *, configured: dict[str, Any] | None = None, **fields: Any
) -> Result:
    """Read in this process, with real waits."""
    return _read(SourceTrutoSegments(), sandbox, configured, None, fields)


def _read(
    source: SourceTrutoSegments,
    sandbox: Sandbox,
    configured: dict[str, Any] | None,
    state: list[dict[str, Any]] | None,
    fields: dict[str, Any],
) -> Result:
    made = {name: fields.pop(name) for name in ("sync_mode", "streams") if name in fields}
    parsed: ConfiguredAirbyteCatalog = ConfiguredAirbyteCatalogSerializer.load(
        configured or catalog(**made)
    )
    begin = [AirbyteStateMessageSerializer.load(message) for message in state or []]
    result = Result()
    logger = logging.getLogger("airbyte.test")
    try:
        for message in source.read(logger, config(sandbox, **fields), parsed, begin):
            result.messages.append(_plain(message))
    except AirbyteTracedException as failure:
        result.failure = failure
    return result


def check(sandbox: Sandbox, **fields: Any) -> tuple[Status, str | None]:
    """Check in this process, with waits that take no time."""
    source = SourceTrutoSegments(FakeClock())
    status = source.check(logging.getLogger("airbyte.test"), config(sandbox, **fields))
    return status.status, status.message


def run(*arguments: str, seconds: float = 60.0) -> Result:
    """Run the installed command in its own process, exactly as Airbyte calls it."""
    process = subprocess.run(
        [str(COMMAND), *arguments],
        capture_output=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    return Result(messages(process.stdout), exit_code=process.returncode)


def command(*arguments: str) -> Result:
    """Run a command in this process, from its files to its lines, with waits that take no time."""
    clock = FakeClock()
    result = Result()
    entrypoint = Entrypoint(BatchSource(clock))
    with redirect_stdout(StringIO()) as printed:
        try:
            for line in entrypoint.run(Entrypoint.parse_args(list(arguments))):
                printed.write(f"{line}\n")
        except AirbyteTracedException as failure:
            result.failure = failure
    result.messages = messages(printed.getvalue())
    result.waits = clock.waits
    return result


@contextmanager
def raw_server(response: bytes) -> Iterator[str]:
    """Run a server that answers each connection with the same bytes, and yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(response)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"  # ignore-https-check
        # This wakes up `accept`.
        listener.shutdown(socket.SHUT_RDWR)


# A certificate of truto.invalid and 127.0.0.1 with its key, for these tests alone, until 2126:
#   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 \
#     -subj /CN=localhost -addext subjectAltName=DNS:truto.invalid,IP:127.0.0.1 \
#     -addext keyUsage=critical,digitalSignature,keyCertSign
CERTIFICATE = Path(__file__).with_name("certificate.pem")


@contextmanager
def tls_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server that serves each connection in a thread, and yield its host and port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
            answer(secured)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        # This wakes up `accept`.
        listener.shutdown(socket.SHUT_RDWR)


def forward(source: socket.socket, target: socket.socket) -> None:
    """Send on what arrives, until one of the connections ends."""
    with suppress(OSError):
        while received := source.recv(65_536):
            target.sendall(received)


def write(path: Path, content: Any) -> str:
    """Write a JSON file and return its path."""
    path.write_text(json.dumps(content))
    return str(path)


def error_resolutions() -> list[Resolution]:
    """Return all rows of the error table, and those made for statuses that it does not have."""
    found: list[Resolution] = []
    for value in vars(errors).values():
        entries = value.values() if isinstance(value, Mapping) else [value]
        found += [entry for entry in entries if isinstance(entry, Resolution)]
    for speaker in (Speaker.TRUTO, Speaker.VENDOR, Speaker.GATEWAY):
        for status in (418, 599):
            body = ErrorBody(speaker)
            found.append(errors.interpret_response(status, body, sent_cursor=False))
    return found


def without_cdc(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without the columns of change data capture."""
    return {name: value for name, value in data.items() if not name.startswith("_ab_cdc_")}


def texts(value: Any) -> Iterator[str]:
    """Yield the texts in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (*texts(key), *texts(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def aged(states: Sequence[dict[str, Any]], hours: float = 1.0) -> list[dict[str, Any]]:
    """Return states as if some hours had passed since syncs found accounts empty."""
    older: list[dict[str, Any]] = deepcopy([*states])
    for message in older:
        for entry in message["stream"]["stream_state"].get("states", []):
            cursor = entry["cursor"]
            if "empty" in cursor:
                since = datetime.fromisoformat(cursor["empty"]) - timedelta(hours=hours)
                cursor["empty"] = since.isoformat()
    return older


def parametrize_seeds(metafunc: pytest.Metafunc, name: str) -> None:
    """Give a test the seeds of the options `--{name}-seeds` and `--{name}-from`."""
    first = metafunc.config.getoption(f"--{name}-from")
    seeds = range(first, first + metafunc.config.getoption(f"--{name}-seeds"))
    metafunc.parametrize("seed", seeds, ids=[f"seed-{seed}" for seed in seeds])


def _plain(message: AirbyteMessage) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(AirbyteMessageSerializer.dump(message)))
    return plain


def read_with(
    source: SourceTrutoSegments,
    sandbox: Sandbox,
    *,
    configured: dict[str, Any] | None = None,
    state: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> Result:
    """Read in this process with a source that the test provides."""
    return _read(source, sandbox, configured, state, fields)


def kinds(sandbox: Sandbox) -> Counter[str]:
    """Count the requests of each kind."""
    return Counter(request.kind for request in sandbox.requests)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def id_of(number: int) -> str:
    """Return the ID of one of several accounts."""
    return str(uuid5(NAMESPACE_URL, f"account-{number}"))


def numbered_account(number: int, vendor: str = "klaviyo", count: int = 3, **how: Any) -> Account:
    """Return one of several accounts, with some segments."""
    if "segments" not in how:
        how["segments"] = vendors.segments(vendor, count)
    return Account(id=id_of(number), vendor=vendor, **how)


def listed(*numbers: int) -> dict[str, Any]:
    """Return the option that reads some of several accounts."""
    return {"mode": "listed", "ids": [id_of(number) for number in numbers]}
