"""The console entry: the CDK's entrypoint, with every failure as a sentence."""

import gc
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any

from airbyte_cdk.entrypoint import AirbyteEntrypoint
from airbyte_cdk.logger import PRINT_BUFFER
from airbyte_cdk.models import AirbyteMessage, ConnectorSpecification, FailureType
from airbyte_cdk.sources.connector_state_manager import HashableStreamDescriptor
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from typing_extensions import override

from source_truto_segments.source import SourceTrutoSegments
from source_truto_segments.sync.messages import RecordBatch

_STATE = '{"type":"STATE"'
_STDOUT = 1  # the file descriptor: the CDK has put its buffer in the place of sys.stdout


class BatchSource(SourceTrutoSegments):
    """The source for an entrypoint that takes records in batches."""

    read = SourceTrutoSegments.read_batches


class Entrypoint(AirbyteEntrypoint):
    """The CDK's entrypoint, which counts and prints the records of a page at once."""

    @staticmethod
    @override
    def validate_connection(source_spec: ConnectorSpecification, config: Mapping[str, Any]) -> None:
        # The source validates the configuration when it parses it.
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
    def read(self, *arguments: Any) -> Iterable[AirbyteMessage]:
        for message in super().read(*arguments):
            if isinstance(message, RecordBatch):
                sys.stdout.write(message.lines())
            else:
                yield message


def run(argv: list[str] | None = None) -> None:
    """Run one command of the Airbyte protocol: spec, check, discover or read.

    It prints the protocol's messages to stdout, a JSON object a line. A failure is a trace message
    with a sentence for the user; the process then ends with exit code 1.

    Args:
        argv: The command and its options; by default those of the process.
    """
    arguments = Entrypoint.parse_args((sys.argv[1:] if argv is None else argv) or ["--help"])
    source = BatchSource()
    entrypoint = Entrypoint(source)
    # The modules stay to the end: looking through them for garbage costs time with every page.
    gc.freeze()
    exit_code = 0
    if arguments.command == "read":
        _install_signal_handlers(source)
    try:
        with PRINT_BUFFER:
            try:
                for message in entrypoint.run(arguments):
                    sys.stdout.write(f"{message}\n")
                    if message.startswith(_STATE):
                        # The CDK holds lines back for a moment; a kill would lose this one.
                        PRINT_BUFFER.flush()
            except BrokenPipeError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the user sees a sentence
                trace = _as_traced(error).as_sanitized_airbyte_message()
                sys.stdout.write(f"{Entrypoint.airbyte_message_to_string(trace)}\n")
                exit_code = 1
    except BrokenPipeError:
        # Whoever read the messages has gone; nobody is left to read an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        exit_code = 1
    sys.exit(exit_code)


def _install_signal_handlers(source: SourceTrutoSegments) -> None:
    """Let a sync that is terminated write its state first; a second signal ends it at once."""

    def handle(number: int, _: FrameType | None) -> None:
        if source.shutdown_requested:
            os._exit(128 + number)
        source.request_shutdown()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def _as_traced(error: Exception) -> AirbyteTracedException:
    """Return an error with a sentence as its message."""
    if isinstance(error, AirbyteTracedException):
        return error
    message = (
        f"The connector failed unexpectedly ({type(error).__name__}: {error}). Report this message "
        "to its maintainers."
    )
    return AirbyteTracedException.from_exception(
        error, message=message, failure_type=FailureType.system_error
    )
