"""The source: spec, check, discover and read, as Airbyte calls them."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import closing
from datetime import datetime, timedelta, timezone
from difflib import get_close_matches
from typing import Any

import orjson
from airbyte_cdk.models import (
    AirbyteCatalog,
    AirbyteConnectionStatus,
    AirbyteMessage,
    AirbyteStateMessage,
    AirbyteStreamStatus,
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteStream,
    Status,
    SyncMode,
)
from airbyte_cdk.sources import AbstractSource
from airbyte_cdk.sources.connector_state_manager import ConnectorStateManager
from airbyte_cdk.sources.streams import Stream
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from typing_extensions import override

from source_truto_segments import files
from source_truto_segments.check import ConnectionCheck
from source_truto_segments.config import Config, ConfigError
from source_truto_segments.custom_fields import custom_columns
from source_truto_segments.records.changes import ChangeClock
from source_truto_segments.records.columns import UPDATED_AT, ColumnSelection
from source_truto_segments.streams import (
    INTEGRATED_ACCOUNTS,
    SEGMENTS,
    STREAMS,
    Streams,
    TrutoStream,
    filter_digest,
    read_filters,
)
from source_truto_segments.sync.events import Event
from source_truto_segments.sync.messages import RecordBatch, status_message
from source_truto_segments.sync.partition import SelectedStream
from source_truto_segments.sync.state import (
    FullRefreshState,
    IncrementalState,
    InvalidStateError,
    OutdatedStateError,
    StreamState,
)
from source_truto_segments.sync.sync import Sync
from source_truto_segments.sync.worker_pool import MAX_WORKERS, Clock, WorkerPool
from source_truto_segments.truto.client import (
    CHECK_POLICY,
    READ_POLICY,
    RetryPolicy,
    TrutoClient,
)
from source_truto_segments.truto.errors import ReadError, for_check
from source_truto_segments.truto.excerpts import excerpt

# Not `logger`: the CDK passes one of that name to each command.
_log = logging.getLogger("airbyte")

# Seconds. After a killed sync, the state is a few minutes ahead in any case.
_MAX_CLOCK_LEAD = 3600.0


class SourceTrutoSegments(AbstractSource):
    """Reads the marketing segments of integrated accounts from Truto's unified API.

    Args:
        clock: Returns the time, and waits; tests have one whose waits take no time.
        shutdown: Set when a read has to end early, with its state written.
    """

    def __init__(self, clock: Clock | None = None, shutdown: threading.Event | None = None) -> None:
        self._clock = clock or Clock()
        self._shutdown = shutdown or threading.Event()

    def request_shutdown(self) -> None:
        """End a read early, with its state written; a signal handler can call this."""
        self._shutdown.set()

    @property
    def name(self) -> str:
        """The connector's name in its logs."""
        return "source-truto-segments"

    @staticmethod
    @override
    def read_config(config_path: str) -> MutableMapping[str, Any]:
        return files.read_config(config_path)

    @classmethod
    @override
    def read_catalog(cls, catalog_path: str) -> ConfiguredAirbyteCatalog:
        return files.read_catalog(catalog_path)

    @classmethod
    @override
    def read_state(cls, state_path: str) -> list[AirbyteStateMessage]:
        return files.read_state(state_path)

    def streams(self, config: Mapping[str, Any]) -> list[Stream]:
        """Return the streams of this source.

        Raises:
            ConfigError: If the configuration is not valid.
        """
        return [*Streams.build(Config.parse(config))]

    @override
    def discover(self, logger: logging.Logger, config: Mapping[str, Any]) -> AirbyteCatalog:
        """Return the catalog: the unified model, with the columns that a customer's override adds.

        Raises:
            ConfigError: If the configuration is not valid.
            ReadError: If Truto could not be asked.
        """
        parsed = _parse(config)
        streams = [stream.as_airbyte_stream() for stream in Streams.build(parsed)]
        pool = WorkerPool[Mapping[str, Any] | ReadError](1, self._clock)
        client = self._client(parsed, CHECK_POLICY, pool.token_verified)
        with closing(client):
            custom = custom_columns(parsed.integrated_account_id, client, pool)
        for stream in streams:
            if stream.name == SEGMENTS:
                columns = {**stream.json_schema["properties"], **custom}
                stream.json_schema = {**stream.json_schema, "properties": columns}
        return AirbyteCatalog(streams=streams)

    @override
    def check(self, logger: logging.Logger, config: Mapping[str, Any]) -> AirbyteConnectionStatus:
        """Request segments from the configured accounts and some others; report what is wrong."""
        succeeded, error = self.check_connection(logger, config)
        status = Status.SUCCEEDED if succeeded else Status.FAILED
        return AirbyteConnectionStatus(status=status, message=error)

    @override
    def check_connection(
        self, logger: logging.Logger, config: Mapping[str, Any]
    ) -> tuple[bool, Any | None]:
        """Return whether the accounts can be read, with what is wrong or has no effect, or None."""
        warnings: tuple[str, ...] = ()
        try:
            parsed = _parse(config)
            warnings = parsed.warnings
            pool = WorkerPool[Event](_max_workers(parsed), self._clock)
            client = self._client(parsed, CHECK_POLICY, pool.token_verified)
            with closing(client):
                connection = ConnectionCheck(parsed, client, pool)
                message = connection.error_message()
                warnings = (*warnings, *connection.warnings)
        except AirbyteTracedException as failure:
            message = failure.message
        message = None if message is None else for_check(message)
        return message is None, "\n".join(filter(None, [message, *warnings])) or None

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
        parsed = _parse(config)
        if not catalog.streams:
            _log.warning("The catalog selects no stream, so nothing is read.")
            return
        known = [c for c in catalog.streams if c.stream.name in STREAMS]
        unknown = [c.stream.name for c in catalog.streams if c.stream.name not in STREAMS]
        streams = Streams.build(parsed, **{c.stream.name: _columns(c) for c in known})
        by_name = {stream.name: stream for stream in streams}
        selected = {
            c.stream.name: _select(by_name[c.stream.name], c, state or [], parsed) for c in known
        }
        for name in unknown:
            yield status_message(name, AirbyteStreamStatus.STARTED)
            yield status_message(name, AirbyteStreamStatus.INCOMPLETE)
        missing = _unknown_streams(unknown)
        pool = WorkerPool[Event](_max_workers(parsed), self._clock)
        client = self._client(parsed, READ_POLICY, pool.token_verified)
        sync = Sync(parsed, client, pool, streams, selected, self._shutdown, self._clock.now)
        try:
            if selected:
                with closing(client):
                    yield from sync.run()
        except AirbyteTracedException:
            if unknown:
                yield missing.as_sanitized_airbyte_message()
            raise
        if unknown:
            raise missing

    def _client(
        self, config: Config, policy: RetryPolicy, token_verified: Callable[[], None]
    ) -> TrutoClient:
        return TrutoClient(
            config.api_url,
            config.token,
            policy,
            self._clock.now,
            token_verified=token_verified,
            max_connections=_max_workers(config),
            share=config.shard_count,
            quotes=config.asks_truto,
        )


def _parse(config: Mapping[str, Any]) -> Config:
    """Parse the configuration, and log a warning for each key without an effect."""
    parsed = Config.parse(config)
    for text in parsed.warnings:
        _log.warning("%s", text)
    return parsed


def _max_workers(config: Config) -> int:
    return config.num_workers or MAX_WORKERS


def _unknown_streams(names: list[str]) -> ConfigError:
    nearest = [(name, *get_close_matches(name, STREAMS, n=1)) for name in names]
    listed = ", ".join(
        f'"{name}"' + "".join(f' (perhaps "{found}" is meant)' for found in close)
        for name, *close in nearest
    )
    return ConfigError(
        f"The source has no stream {listed}. Refresh the schema of the connection, and deselect "
        "what it no longer has."
    )


def _columns(configured: ConfiguredAirbyteStream) -> ColumnSelection:
    return ColumnSelection.from_schema(configured.stream.name, configured.stream.json_schema)


def _select(
    stream: TrutoStream,
    configured: ConfiguredAirbyteStream,
    state: list[AirbyteStateMessage],
    config: Config,
) -> SelectedStream:
    """Return a selected stream, with the state with which the read begins.

    Raises:
        ConfigError: If its state is not valid.
    """
    name, sync_mode = stream.name, configured.sync_mode
    if sync_mode is SyncMode.incremental:
        _warn_of_cursor(configured)
    try:
        blob = ConnectorStateManager(state).get_stream_state(name, None)
    except (ValueError, AttributeError, TypeError) as invalid:
        raise ConfigError(
            f"The state is not valid: {invalid}. Reset the connection's streams; the next sync "
            "then reads everything."
        ) from None
    try:
        return _with_state(stream, sync_mode, blob, config)
    except OutdatedStateError:
        _log.info(
            "The state of the stream %s was written by version 0.1 and is not used: everything is "
            "read and emitted once.",
            name,
        )
        return _with_state(stream, sync_mode, {}, config)
    except InvalidStateError as invalid:
        raise ConfigError(
            f"The state of the stream {name} is not valid: {invalid}. Reset the stream in the "
            "connection's settings; the next sync then reads everything."
        ) from None


def _warn_of_cursor(configured: ConfiguredAirbyteStream) -> None:
    """Warn if the catalog keeps a destination from seeing which version of a row is newer."""
    columns = (configured.stream.json_schema or {}).get("properties")
    name, cursor_field = configured.stream.name, configured.cursor_field
    if cursor_field and list(cursor_field) != [UPDATED_AT]:
        _log.warning(
            "The cursor field of the stream %s is %s, by which a destination can keep an older "
            "version of a row. Refresh the source schema, and select %s as the cursor field.",
            name,
            excerpt(".".join(map(str, cursor_field))),
            UPDATED_AT,
        )
    if columns and UPDATED_AT not in columns:
        _log.warning(
            "The catalog of the stream %s lacks the column %s, without which a destination can "
            "keep an older version of a row. Refresh the source schema, and select the column.",
            name,
            UPDATED_AT,
        )


def _with_state(
    stream: TrutoStream, sync_mode: SyncMode, blob: Mapping[str, Any], config: Config
) -> SelectedStream:
    filters = read_filters(config, stream.name)
    columns = None if stream.columns.included is None else sorted(stream.columns.included)
    state: StreamState
    if sync_mode is SyncMode.incremental:
        is_list = stream.name == INTEGRATED_ACCOUNTS and config.account_list is not None
        digest = filter_digest(columns)
        state = IncrementalState.load(blob, filters, is_list=is_list, columns=digest)
        clock = ChangeClock(state.cursor_value)
        if clock.lead > _MAX_CLOCK_LEAD:
            _log.warning(
                "The last sync's clock was %s ahead of this machine's. The values of %s in the "
                "stream %s continue after that time, so that destinations keep the newer rows. "
                "Check the clocks of the machines that run syncs.",
                timedelta(seconds=round(clock.lead)),
                UPDATED_AT,
                stream.name,
            )
    else:
        filters["columns"] = columns
        state, clock = (
            FullRefreshState.load(blob, filters, datetime.now(timezone.utc)),
            ChangeClock(),
        )
    state.size = len(orjson.dumps(blob))
    return SelectedStream(stream, state, clock)
