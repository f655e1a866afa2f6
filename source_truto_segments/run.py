"""The console command: the CDK's entrypoint, extended to report every failure in a sentence."""

import copy
import errno
import gc
import io
import logging
import os
import select
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stdout
from importlib.metadata import version
from types import FrameType
from typing import Any, TextIO, cast

from airbyte_cdk.entrypoint import AirbyteEntrypoint
from airbyte_cdk.logger import PRINT_BUFFER
from airbyte_cdk.models import AirbyteMessage, ConnectorSpecification, FailureType
from airbyte_cdk.sources.connector_state_manager import HashableStreamDescriptor
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from typing_extensions import override

from source_truto_segments.source import SourceTrutoSegments
from source_truto_segments.sync.messages import RecordBatch
from source_truto_segments.truto.excerpts import excerpt, mask

_STDOUT = 1
# The attributes of a log record without extras.
_LOG_FIELDS = vars(logging.makeLogRecord({})).keys()
# A platform that ends a sync may send both signals at once. Only a later one kills the process.
_SECONDS_OF_ONE_REQUEST = 1.0


class OutputError(Exception):
    """The output accepts nothing more, so no later state either."""


class Output(io.TextIOBase):
    """The process's stdout: UTF-8 and complete, whatever the environment says.

    Python's own stream, if it is unbuffered, loses the rest of a partial write. This one writes
    each text completely before the next one. After a failure, it writes nothing more.

    Args:
        descriptor: The file descriptor; it stays open.
    """

    def __init__(self, descriptor: int = _STDOUT) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._error: OSError | None = None
        self._descriptor = -1
        try:
            # Python has no stream if stdout was closed; its number may belong to another file now.
            self._descriptor = os.dup(-1 if sys.__stdout__ is None else descriptor)
        except OSError as error:
            self._error = error

    def send(self, text: str) -> None:
        """Write a text.

        Raises:
            OutputError: If this text, or an earlier one, could not be written.
        """
        self.write(text)
        if self._error is not None:
            raise OutputError(
                f"The output could not be written: {self._error.strerror}."
            ) from self._error

    @override
    def write(self, text: str) -> int:
        """Write a text; do not raise a failure but note it, because log handlers call this, too."""
        rest = memoryview(text.encode(errors="backslashreplace"))
        with self._lock:
            try:
                while rest and self._error is None:
                    rest = rest[self._write_some(rest) :]
            except OSError as error:
                self._error = error
        return len(text)

    def is_lost(self) -> bool:
        """Return whether the output is broken, even if nothing was written since then."""
        if self._error is None:
            events = dict(self._poll(0))
            if events.get(self._descriptor, 0) & (select.POLLERR | select.POLLHUP):
                self._error = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return self._error is not None

    @override
    def close(self) -> None:
        """Close this object's own descriptor; stdout itself stays open."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        super().close()

    def _write_some(self, content: memoryview) -> int:
        try:
            return os.write(self._descriptor, content)
        except BlockingIOError:
            self._poll(select.POLLOUT, timeout=None)
            return 0

    def _poll(self, events: int, timeout: int | None = 0) -> list[tuple[int, int]]:
        poll = select.poll()
        poll.register(self._descriptor, events)
        return poll.poll(timeout)


class Shutdown(threading.Event):
    """Set when the sync has to end: by a signal, or because nobody reads its output any more."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    @override
    def is_set(self) -> bool:
        return super().is_set() or self._output.is_lost()


class BatchSource(SourceTrutoSegments):
    """The source for an entrypoint that accepts records in batches."""

    read = SourceTrutoSegments.read_batches


class Entrypoint(AirbyteEntrypoint):
    """The CDK's entrypoint, extended to count and print the records of a page at once."""

    @staticmethod
    @override
    def validate_connection(source_spec: ConnectorSpecification, config: Mapping[str, Any]) -> None:
        # The source validates the configuration itself.
        pass

    @staticmethod
    @override
    def handle_record_counts(
        message: AirbyteMessage, stream_message_count: defaultdict[HashableStreamDescriptor, float]
    ) -> AirbyteMessage:
        if not isinstance(message, RecordBatch):
            return AirbyteEntrypoint.handle_record_counts(message, stream_message_count)
        descriptor = HashableStreamDescriptor(name=message.stream_name)
        stream_message_count[descriptor] += len(message.records)
        return message

    @override
    def check(self, *arguments: Any) -> Iterable[AirbyteMessage]:
        return map(_masked, super().check(*arguments))

    @override
    def read(self, *arguments: Any) -> Iterable[AirbyteMessage]:
        for message in super().read(*arguments):
            if isinstance(message, RecordBatch):
                sys.stdout.write(message.lines())
            else:
                yield _masked(message)


class LogHandler(logging.Handler):
    """Writes the connector's own log, masked; drops libraries' logs, which can have whole URLs.

    Also drops the CDK's note about its monitor of the memory, which every command writes.

    Args:
        output: Where to write it.
        formatter: Turns each record into a message of the protocol.
    """

    def __init__(self, output: Output, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self._output = output
        self.setFormatter(formatter)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._output.write(f"{self.format(record)}\n")

    @override
    def filter(self, record: logging.LogRecord) -> Any:
        is_note = str(record.msg).startswith("MemoryMonitor instantiated")
        is_own = record.name.partition(".")[0] == "airbyte"
        return is_own and not is_note and super().filter(record)

    @override
    def format(self, record: logging.LogRecord) -> str:
        shown = copy.copy(record)
        extras = {k: mask(str(v)) for k, v in vars(record).items() if k not in _LOG_FIELDS}
        vars(shown).update(extras, msg=mask(record.getMessage()), args=None)
        if record.exc_info:
            shown.exc_text = mask(logging.Formatter().formatException(record.exc_info))
        return super().format(shown)


def run(argv: list[str] | None = None) -> None:
    """Run one command of the Airbyte protocol: spec, check, discover or read; or --version.

    Print the protocol's messages to stdout, one JSON object per line. On a failure, print a trace
    message with a sentence for the user, and exit with code 1.

    Args:
        argv: The command and its options; those of the process by default.
    """
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["--version"]:
        print(f"source-truto-segments {version('airbyte-source-truto-segments')}")
        return
    arguments = Entrypoint.parse_args(given or ["--help"])
    exit_code = 0
    with closing(Output()) as output, _as_stdout(output):
        source = BatchSource(shutdown=Shutdown(output))
        entrypoint = Entrypoint(source)
        # The modules are never garbage, so keep the collector from searching them with every page.
        gc.freeze()
        if arguments.command == "read":
            _install_signal_handlers(source)
        try:
            try:
                for message in entrypoint.run(arguments):
                    output.send(f"{message}\n")
            except OutputError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the user sees a sentence
                exit_code = 1
                trace = _masked(_as_traced(error).as_sanitized_airbyte_message())
                output.send(f"{Entrypoint.airbyte_message_to_string(trace)}\n")
        except OutputError as lost:
            exit_code = 1
            # A reader that closed the pipe needs no message.
            if not isinstance(lost.__cause__, BrokenPipeError):
                sys.stderr.write(f"{lost}\n")
    sys.exit(exit_code)


@contextmanager
def _as_stdout(output: Output) -> Iterator[None]:
    """Send stdout and the CDK's log, which has its own buffer, to the same output."""
    root = logging.getLogger()
    replaced = {
        handler: LogHandler(output, handler.formatter)
        for handler in root.handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is PRINT_BUFFER
    }
    for old, new in replaced.items():
        root.removeHandler(old)
        root.addHandler(new)
    try:
        with redirect_stdout(cast("TextIO", output)):
            yield
    finally:
        for old, new in replaced.items():
            root.removeHandler(new)
            # If there is no stdout, flushing the CDK's buffer at exit would fail.
            if sys.__stdout__ is not None:
                root.addHandler(old)


def _install_signal_handlers(source: SourceTrutoSegments) -> None:
    """Make a signal end the sync with its state written, and a later one kill the process."""
    if threading.current_thread() is not threading.main_thread():
        return
    first_at: list[float] = []

    def handle(number: int, _: FrameType | None) -> None:
        if not first_at:
            first_at.append(time.monotonic())
            source.request_shutdown()
        elif time.monotonic() - first_at[0] >= _SECONDS_OF_ONE_REQUEST:
            os._exit(128 + number)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def _masked(message: AirbyteMessage) -> AirbyteMessage:
    """Mask the secrets in the parts of a message that people read."""
    error, status = message.trace and message.trace.error, message.connectionStatus
    texts = [(error, name) for name in ("message", "internal_message", "stack_trace")]
    for part, name in [*texts, (status, "message")]:
        if getattr(part, name, None):
            setattr(part, name, mask(getattr(part, name)))
    return message


def _as_traced(error: Exception) -> AirbyteTracedException:
    """Return an error as an exception whose message is a sentence."""
    if isinstance(error, AirbyteTracedException):
        return error
    text = excerpt(str(error))
    message = (
        f"The connector failed unexpectedly ({type(error).__name__}: {text}). Report this message "
        "to its maintainers."
    )
    return AirbyteTracedException.from_exception(
        error, message=message, failure_type=FailureType.system_error
    )
