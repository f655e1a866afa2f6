"""The source: spec, check, discover and read, as Airbyte asks for them."""

import logging
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import closing, contextmanager
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
from typing_extensions import override

from source_truto_segments.check import ConnectionCheck
from source_truto_segments.config import Config, ConfigError
from source_truto_segments.custom_fields import custom_columns
from source_truto_segments.records.changes import ChangeClock
from source_truto_segments.records.columns import ColumnSelection
from source_truto_segments.streams import SEGMENTS, STREAMS, Streams, TrutoStream, read_filters
from source_truto_segments.sync.events import Event
from source_truto_segments.sync.messages import RecordBatch
from source_truto_segments.sync.partition import SelectedStream
from source_truto_segments.sync.state import (
    FullRefreshState,
    IncrementalState,
    InvalidStateError,
    OutdatedStateError,
)
from source_truto_segments.sync.sync import Sync
from source_truto_segments.sync.worker_pool import MAX_WORKERS, Clock, WorkerPool
from source_truto_segments.truto.client import (
    CHECK_POLICY,
    READ_POLICY,
    RetryPolicy,
    TrutoClient,
)
from source_truto_segments.truto.responses import excerpt

# Not `logger`: the CDK passes one of that name to each command.
_log = logging.getLogger("airbyte")

# Airbyte generates these files; only hand-written ones are malformed.
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
        shutdown: Set when a read is to end early, with its state written.
    """

    def __init__(self, clock: Clock | None = None, shutdown: threading.Event | None = None) -> None:
        self._clock = clock or Clock()
        self._shutdown = shutdown or threading.Event()

    def request_shutdown(self) -> None:
        """End a read early, with its state written; can be called by a signal handler."""
        self._shutdown.set()

    @property
    def name(self) -> str:
        """The connector's name in its logs."""
        return "source-truto-segments"

    @staticmethod
    @override
    def read_config(config_path: str) -> MutableMapping[str, Any]:
        with _as_config_error(config_path):
            return AbstractSource.read_config(config_path)

    @classmethod
    @override
    def read_catalog(cls, catalog_path: str) -> ConfiguredAirbyteCatalog:
        with _as_config_error(catalog_path, _CATALOG_FORM):
            return super().read_catalog(catalog_path)

    @classmethod
    @override
    def read_state(cls, state_path: str) -> list[AirbyteStateMessage]:
        with _as_config_error(state_path, _STATE_FORM):
            return super().read_state(state_path)

    def streams(self, config: Mapping[str, Any]) -> list[Stream]:
        """Return the streams of this source.

        Raises:
            ConfigError: If the configuration is not valid.
        """
        return [*Streams.build(Config.parse(config))]

    @override
    def discover(self, logger: logging.Logger, config: Mapping[str, Any]) -> AirbyteCatalog:
        """Return the catalog: the unified model, and the columns that a customer's override adds.

        Raises:
            ConfigError: If the configuration is not valid.
        """
        parsed = Config.parse(config)
        client, _ = self._connect(parsed, CHECK_POLICY)
        streams = [stream.as_airbyte_stream() for stream in Streams.build(parsed)]
        with closing(client):
            custom = custom_columns(parsed.integrated_account_id, client)
        for stream in streams:
            if stream.name == SEGMENTS:
                columns = {**stream.json_schema["properties"], **custom}
                stream.json_schema = {**stream.json_schema, "properties": columns}
        return AirbyteCatalog(streams=streams)

    @override
    def check(self, logger: logging.Logger, config: Mapping[str, Any]) -> AirbyteConnectionStatus:
        """Ask the configured accounts, and some others, for segments; report what is wrong."""
        succeeded, error = self.check_connection(logger, config)
        if succeeded:
            return AirbyteConnectionStatus(status=Status.SUCCEEDED)
        return AirbyteConnectionStatus(status=Status.FAILED, message=str(error))

    @override
    def check_connection(
        self, logger: logging.Logger, config: Mapping[str, Any]
    ) -> tuple[bool, Any | None]:
        """Return whether the accounts can be read, and if not, the sentences that say why."""
        try:
            parsed = Config.parse(config)
            client, pool = self._connect(parsed, CHECK_POLICY)
            with closing(client):
                message = ConnectionCheck(parsed, client, pool).error_message()
        except AirbyteTracedException as failure:
            message = failure.message
        return message is None, message

    @override
    def read(
        self,
        logger: logging.Logger,
        config: Mapping[str, Any],
        catalog: ConfiguredAirbyteCatalog,
        state: list[AirbyteStateMessage] | None = None,
    ) -> Iterator[AirbyteMessage]:
        """Read the selected streams of all accounts.

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
        logger: logging.Logger,  # noqa: ARG002 - as `read`
        config: Mapping[str, Any],
        catalog: ConfiguredAirbyteCatalog,
        state: list[AirbyteStateMessage] | None = None,
    ) -> Iterator[AirbyteMessage]:
        """Read as `read` does, with the records of a page as one `RecordBatch`."""
        parsed = Config.parse(config)
        if not catalog.streams:
            _log.warning("The catalog selects no stream, so nothing is read.")
            return
        streams = Streams.build(parsed, **{c.stream.name: _columns(c) for c in catalog.streams})
        by_name = {stream.name: stream for stream in streams}
        selected = {
            configured.stream.name: _select(
                by_name[configured.stream.name], configured.sync_mode, state or [], parsed
            )
            for configured in catalog.streams
        }
        client, pool = self._connect(parsed, READ_POLICY)
        now = self._clock.now
        sync = Sync(parsed, client, pool, streams, selected, self._shutdown, now)
        with closing(client):
            yield from sync.run()

    def _connect(
        self, config: Config, policy: RetryPolicy
    ) -> tuple[TrutoClient, WorkerPool[Event]]:
        max_workers = config.num_workers or MAX_WORKERS
        pool: WorkerPool[Event] = WorkerPool(max_workers, self._clock)
        client = TrutoClient(
            config.api_url,
            config.token,
            policy,
            self._clock.now,
            token_verified=pool.token_verified,
            max_connections=max_workers,
        )
        return client, pool


def _columns(configured: ConfiguredAirbyteStream) -> ColumnSelection:
    """Return the columns that the configured catalog selects.

    Raises:
        ConfigError: If there is no such stream.
    """
    name = configured.stream.name
    if name not in STREAMS:
        raise ConfigError(
            f'The source has no stream "{name}". Refresh the schema of the connection, and '
            "deselect the stream."
        )
    return ColumnSelection.from_schema(name, configured.stream.json_schema)


def _select(
    stream: TrutoStream, sync_mode: SyncMode, state: list[AirbyteStateMessage], config: Config
) -> SelectedStream:
    """Return a selected stream with the state that the read begins with.

    Raises:
        ConfigError: If its state is not valid.
    """
    name, filters = stream.name, read_filters(config, stream.name)
    try:
        blob = ConnectorStateManager(state).get_stream_state(name, None)
    except (ValueError, AttributeError, TypeError) as invalid:
        raise ConfigError(
            f"The state is not valid: {invalid}. Reset the connection's streams; the next sync "
            "then reads everything."
        ) from None
    try:
        return _with_state(stream, sync_mode, blob, filters)
    except OutdatedStateError:
        _log.info(
            "The state of the stream %s was written by version 0.1 and is not used: everything is "
            "read and emitted once.",
            name,
        )
        return _with_state(stream, sync_mode, {}, filters)
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
    """Say in a sentence that a file cannot be read, or is not valid."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be read: {error.strerror}.") from None
    except SchemaValidationError as invalid:
        first = invalid.errors[0]
        detail = f"{excerpt(first.message)} at {first.instance_path or 'its root'}"
    except (ValueError, TypeError, AttributeError, RecursionError) as invalid:
        detail = excerpt(str(invalid)).rstrip(".")
    else:
        return
    raise ConfigError(f"{path} is not valid: {detail}.{guidance}")
