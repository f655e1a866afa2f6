"""The console entry: the CDK's entrypoint, with every failure told in a sentence."""

import gc
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Mapping
from types import FrameType
from typing import Any

import orjson
from airbyte_cdk.entrypoint import AirbyteEntrypoint
from airbyte_cdk.logger import PRINT_BUFFER
from airbyte_cdk.models import (
    AirbyteMessage,
    AirbyteMessageSerializer,
    ConnectorSpecification,
    FailureType,
)
from airbyte_cdk.sources.connector_state_manager import HashableStreamDescriptor
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_truto_segments.config import Config
from source_truto_segments.source import SourceTrutoSegments
from source_truto_segments.sync import STREAM

_STATE = '{"type":"STATE"'
_SEGMENTS = HashableStreamDescriptor(name=STREAM)
_STDOUT = 1  # the file descriptor: the CDK has put its buffer in the place of sys.stdout


class Entrypoint(AirbyteEntrypoint):
    """The CDK's entrypoint; a wrong configuration is told in the words of the form."""

    @staticmethod
    def validate_connection(  # noqa: D102 - the CDK's
        source_spec: ConnectorSpecification,  # noqa: ARG004 - Config knows the spec
        config: Mapping[str, Any],
    ) -> None:
        Config.parse(config)

    @staticmethod
    def handle_record_counts(  # noqa: D102 - the CDK's
        message: AirbyteMessage, stream_message_count: defaultdict[HashableStreamDescriptor, float]
    ) -> AirbyteMessage:
        if message.record is None:
            return AirbyteEntrypoint.handle_record_counts(message, stream_message_count)
        # There is one stream only: no descriptor of it has to be made for each record.
        stream_message_count[_SEGMENTS] += 1.0
        return message


def run(argv: list[str] | None = None) -> None:
    """Runs one command of the Airbyte protocol: spec, check, discover or read.

    Prints the protocol's messages to stdout, a JSON object a line. A failure is a trace message
    with a sentence for the user; the process then ends with exit code 1.

    Args:
        argv: The command and its options; by default those of the process.
    """
    arguments = Entrypoint.parse_args((sys.argv[1:] if argv is None else argv) or ["--help"])
    source = SourceTrutoSegments()
    entrypoint = Entrypoint(source)
    # The modules stay to the end: looking through them for garbage costs time with every page.
    gc.freeze()
    exit_code = 0
    if arguments.command == "read":
        _end_on_signal(source)
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
            except Exception as failure:  # noqa: BLE001 - whatever it is, the user is told
                print(f"{_serialized(_told(failure).as_sanitized_airbyte_message())}\n", end="")
                exit_code = 1
    except BrokenPipeError:
        # Whoever read the messages has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        exit_code = 1
    if source.is_ending:
        # All is written. A worker may still wait for an answer, and nobody waits for that worker.
        os._exit(exit_code)
    sys.exit(exit_code)


def _end_on_signal(source: SourceTrutoSegments) -> None:
    """Lets a sync that is told to end write its state first; a second signal ends it at once."""

    def end(number: int, _: FrameType | None) -> None:
        if source.is_ending:
            os._exit(128 + number)
        source.end()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


def _told(failure: Exception) -> AirbyteTracedException:
    """A failure with a sentence as its message."""
    if isinstance(failure, AirbyteTracedException):
        return failure
    message = (
        f"The connector failed in a way that it does not know ({type(failure).__name__}: "
        f"{failure}). Please report this message to its maintainers."
    )
    return AirbyteTracedException.from_exception(
        failure, message=message, failure_type=FailureType.system_error
    )


def _serialized(message: AirbyteMessage) -> str:
    return orjson.dumps(AirbyteMessageSerializer.dump(message)).decode()
