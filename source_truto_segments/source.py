"""The source: spec, check, discover and read, as Airbyte asks for them."""

import logging
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from airbyte_cdk.models import (
    AirbyteCatalog,
    AirbyteConnectionStatus,
    AirbyteMessage,
    AirbyteStateMessage,
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteStream,
    Status,
    SyncMode,
)
from airbyte_cdk.sources import AbstractSource
from airbyte_cdk.sources.connector_state_manager import ConnectorStateManager
from airbyte_cdk.sources.streams import Stream
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from serpyco_rs import SchemaValidationError

from source_truto_segments.changes import ChangeClock
from source_truto_segments.check import ConnectionCheck
from source_truto_segments.client import CHECK_POLICY, READ_POLICY, RetryPolicy, TrutoClient
from source_truto_segments.config import Config, ConfigError
from source_truto_segments.custom_fields import custom_columns
from source_truto_segments.messages import RecordBatch
from source_truto_segments.partition import SelectedStream
from source_truto_segments.records import ColumnSelection
from source_truto_segments.responses import excerpt
from source_truto_segments.state import (
    FullRefreshState,
    IncrementalState,
    InvalidStateError,
    OutdatedStateError,
    read_filters,
)
from source_truto_segments.streams import SEGMENTS, STREAMS, TrutoStream
from source_truto_segments.sync import Sync
from source_truto_segments.worker_pool import MAX_WORKERS, Clock, WorkerPool

# What the platform writes by itself; only who runs the command by hand writes it wrong.
_CATALOG_FORM = (
    " It is a configured catalog: each stream that discover prints, as "
    '{"streams": [{"stream": …, "sync_mode": …, "destination_sync_mode": …}]}.'
)
_STATE_FORM = (
    " It is a list of the state of each stream's last STATE message. Without one, everything is "
    "read; in Airbyte, reset the connection's streams."
)


class SourceTrutoSegments(AbstractSource):
    """Reads the marketing segments of integrated accounts from Truto's unified API.

    Args:
        clock: The time; tests have one whose waits take no time.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._shutdown = threading.Event()

    def request_shutdown(self) -> None:
        """Ends a read early, with its state written; can be called by a signal handler."""
        self._shutdown.set()

    @property
    def shutdown_requested(self) -> bool:
        """Whether a read was asked to end early."""
        return self._shutdown.is_set()

    @property
    def name(self) -> str:
        """The connector's name in its logs."""
        return "source-truto-segments"

    @staticmethod
    def read_config(config_path: str) -> MutableMapping[str, Any]:
        """Reads the configuration's file.

        Raises:
            ConfigError: If it is not valid.
        """
        with _as_config_error(config_path):
            return AbstractSource.read_config(config_path)

    @classmethod
    def read_catalog(cls, catalog_path: str) -> ConfiguredAirbyteCatalog:
        """Reads the configured catalog's file.

        Raises:
            ConfigError: If it is not valid.
        """
        with _as_config_error(catalog_path, _CATALOG_FORM):
            return super().read_catalog(catalog_path)

    @classmethod
    def read_state(cls, state_path: str) -> list[AirbyteStateMessage]:
        """Reads the state's file.

        Raises:
            ConfigError: If it is not valid.
        """
        with _as_config_error(state_path, _STATE_FORM):
            return super().read_state(state_path)

    def streams(self, config: Mapping[str, Any]) -> list[Stream]:
        """The streams of this source.

        Raises:
            ConfigError: If the configuration is not valid.
        """
        parsed = Config.parse(config)
        return [kind(parsed) for kind in STREAMS.values()]

    def discover(self, logger: logging.Logger, config: Mapping[str, Any]) -> AirbyteCatalog:
        """The catalog: the unified model, and the columns that a customer's override adds.

        Raises:
            ConfigError: If the configuration is not valid.
        """
        parsed = Config.parse(config)
        client = TrutoClient(parsed, self._clock, CHECK_POLICY, logger)
        streams = [kind(parsed).as_airbyte_stream() for kind in STREAMS.values()]
        custom = custom_columns(parsed, client, logger)
        for stream in streams:
            if stream.name == SEGMENTS:
                columns = {**stream.json_schema["properties"], **custom}
                stream.json_schema = {**stream.json_schema, "properties": columns}
        return AirbyteCatalog(streams=streams)

    def check(self, logger: logging.Logger, config: Mapping[str, Any]) -> AirbyteConnectionStatus:
        """Asks each account for segments, and says what is wrong in the error table's words."""
        succeeded, error = self.check_connection(logger, config)
        if succeeded:
            return AirbyteConnectionStatus(status=Status.SUCCEEDED)
        return AirbyteConnectionStatus(status=Status.FAILED, message=str(error))

    def check_connection(
        self, logger: logging.Logger, config: Mapping[str, Any]
    ) -> tuple[bool, Any | None]:
        """Whether the accounts can be read, and if not, the sentences that say why."""
        try:
            parsed = Config.parse(config)
            client, pool = self._connect(parsed, CHECK_POLICY, logger)
            message = ConnectionCheck(parsed, client, pool, logger).error_message()
        except AirbyteTracedException as failure:
            message = failure.message
        return message is None, message

    def read(
        self,
        logger: logging.Logger,
        config: Mapping[str, Any],
        catalog: ConfiguredAirbyteCatalog,
        state: list[AirbyteStateMessage] | None = None,
    ) -> Iterator[AirbyteMessage]:
        """Reads the selected streams of all accounts.

        Yields:
            The messages of the Airbyte protocol.

        Raises:
            AirbyteTracedException: If the configuration is not valid, or at the end if an account
                could not be read.
        """
        for message in self.read_batches(logger, config, catalog, state):
            if isinstance(message, RecordBatch):
                yield from message.messages()
            else:
                yield message

    def read_batches(
        self,
        logger: logging.Logger,
        config: Mapping[str, Any],
        catalog: ConfiguredAirbyteCatalog,
        state: list[AirbyteStateMessage] | None = None,
    ) -> Iterator[AirbyteMessage]:
        """As `read`, with the records of a page as one `RecordBatch`."""
        parsed = Config.parse(config)
        selected = {
            configured.stream.name: _select(configured, parsed, state or [], logger)
            for configured in catalog.streams
        }
        if not selected:
            logger.warning("The catalog selects no stream, so nothing is read.")
            return
        client, pool = self._connect(parsed, READ_POLICY, logger)
        sync = Sync(parsed, client, pool, selected, self._shutdown, self._clock, logger)
        yield from sync.run()

    def _connect(
        self, config: Config, policy: RetryPolicy, logger: logging.Logger
    ) -> tuple[TrutoClient, WorkerPool]:
        pool = WorkerPool(config.num_workers or MAX_WORKERS, self._clock)
        return TrutoClient(config, self._clock, policy, logger, pool.open), pool


def _select(
    configured: ConfiguredAirbyteStream,
    config: Config,
    state: list[AirbyteStateMessage],
    logger: logging.Logger,
) -> SelectedStream:
    """A stream as the configured catalog has it, with the state that the read begins with.

    Raises:
        ConfigError: If there is no such stream, or if its state is not valid.
    """
    name = configured.stream.name
    if name not in STREAMS:
        raise ConfigError(
            f'The source has no stream "{name}". Refresh the schema of the connection, and take '
            "the stream out of it."
        )
    try:
        blob = ConnectorStateManager(state).get_stream_state(name, None)
    except (ValueError, AttributeError, TypeError) as invalid:
        raise ConfigError(
            f"The state is not valid: {invalid}. Reset the connection's streams; the next sync "
            "then reads everything."
        ) from None
    columns = ColumnSelection.from_schema(name, configured.stream.json_schema)
    stream = STREAMS[name](config, columns)
    filters = read_filters(config, name)
    try:
        return _with_state(stream, configured.sync_mode, blob, filters)
    except OutdatedStateError:
        logger.info(
            "The state of the stream %s was written by version 0.1 and is not used: everything is "
            "read and emitted once.",
            name,
        )
        return _with_state(stream, configured.sync_mode, {}, filters)
    except InvalidStateError as invalid:
        raise ConfigError(
            f"The state of the stream {name} is not valid: {invalid}. Reset the stream in the "
            "connection's settings; the next sync then reads everything."
        ) from None


def _with_state(
    stream: TrutoStream, sync_mode: SyncMode, blob: Mapping[str, Any], filters: Mapping[str, Any]
) -> SelectedStream:
    if sync_mode is SyncMode.incremental:
        state = IncrementalState.load(blob, filters)
        return SelectedStream(stream, state, ChangeClock(state.cursor_value))
    now = datetime.now(timezone.utc)
    return SelectedStream(stream, FullRefreshState.load(blob, filters, now), ChangeClock())


@contextmanager
def _as_config_error(path: str, guidance: str = "") -> Iterator[None]:
    """Says in a sentence that a file cannot be read, or is not valid."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be read: {error.strerror}.") from None
    except SchemaValidationError as invalid:
        first = invalid.errors[0]
        detail = f"{excerpt(first.message)} at {first.instance_path or 'its root'}."
    except (ValueError, TypeError, AttributeError, RecursionError) as invalid:
        detail = f"{excerpt(str(invalid)).rstrip('.')}."
    else:
        return
    raise ConfigError(f"{path} is not valid: {detail}{guidance}")
