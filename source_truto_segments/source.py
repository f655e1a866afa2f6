"""The source: what Airbyte asks of a connector, answered for Truto's segments."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from airbyte_cdk.models import (
    AirbyteCatalog,
    AirbyteConnectionStatus,
    AirbyteMessage,
    AirbyteStateMessage,
    ConfiguredAirbyteCatalog,
    Status,
    SyncMode,
)
from airbyte_cdk.sources import AbstractSource
from airbyte_cdk.sources.connector_state_manager import ConnectorStateManager
from airbyte_cdk.sources.streams import Stream
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from serpyco_rs import SchemaValidationError

from source_truto_segments.checkup import Checkup
from source_truto_segments.client import CHECKING, READING, Truto
from source_truto_segments.config import Config, ConfigError
from source_truto_segments.model import custom_columns
from source_truto_segments.records import Columns
from source_truto_segments.state import FullRefreshState, IncrementalState, State, filters_of
from source_truto_segments.streams import Segments
from source_truto_segments.sync import STREAM, Sync
from source_truto_segments.workers import Workers

_RESET = " Reset the connection's streams; the next sync then reads everything."


class SourceTrutoSegments(AbstractSource):
    """Reads the marketing segments of integrated accounts from Truto's unified API.

    Args:
        clock: Gives the time in seconds; monotonic.
        sleep: Waits a number of seconds; by default in a way that the end of a sync interrupts.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._ending = threading.Event()

    def end(self) -> None:
        """Ends a read early, with its state written; can be called by a signal handler."""
        self._ending.set()

    @property
    def is_ending(self) -> bool:
        """Whether a read was told to end early."""
        return self._ending.is_set()

    @property
    def name(self) -> str:
        """The connector's name in its logs."""
        return "source-truto-segments"

    @staticmethod
    def read_config(config_path: str) -> MutableMapping[str, Any]:
        """Reads the configuration's file.

        Raises:
            ConfigError: If it holds none.
        """
        with _told_as_config_error(config_path):
            return AbstractSource.read_config(config_path)

    @classmethod
    def read_catalog(cls, catalog_path: str) -> ConfiguredAirbyteCatalog:
        """Reads the configured catalog's file.

        Raises:
            ConfigError: If it holds none.
        """
        with _told_as_config_error(catalog_path):
            return super().read_catalog(catalog_path)

    @classmethod
    def read_state(cls, state_path: str) -> list[AirbyteStateMessage]:
        """Reads the state's file.

        Raises:
            ConfigError: If it holds none.
        """
        with _told_as_config_error(state_path, _RESET):
            return super().read_state(state_path)

    def streams(self, config: Mapping[str, Any]) -> list[Stream]:
        """The streams of this source: `segments`.

        Raises:
            ConfigError: If the configuration cannot be used.
        """
        parsed = Config.parse(config)
        truto = Truto(parsed, self._workers(parsed), READING, logging.getLogger("airbyte"))
        return [Segments(parsed, truto, Columns.of({}))]

    def discover(self, logger: logging.Logger, config: Mapping[str, Any]) -> AirbyteCatalog:
        """The catalog: the unified model, and the columns that an override of the customer's adds.

        Raises:
            ConfigError: If the configuration cannot be used.
        """
        parsed = Config.parse(config)
        truto = Truto(parsed, self._workers(parsed), CHECKING, logger)
        stream = Segments(parsed, truto, Columns.of({})).as_airbyte_stream()
        columns = {**stream.json_schema["properties"], **custom_columns(parsed, truto, logger)}
        stream.json_schema["properties"] = columns
        return AirbyteCatalog(streams=[stream])

    def check(self, logger: logging.Logger, config: Mapping[str, Any]) -> AirbyteConnectionStatus:
        """Reads one segment of each account, and says what is wrong in the error table's words."""
        succeeded, error = self.check_connection(logger, config)
        if succeeded:
            return AirbyteConnectionStatus(status=Status.SUCCEEDED)
        return AirbyteConnectionStatus(status=Status.FAILED, message=str(error))

    def check_connection(
        self, logger: logging.Logger, config: Mapping[str, Any]
    ) -> tuple[bool, Any | None]:
        """Whether the accounts can be read, and if not, the sentences that say why."""
        try:
            parsed = replace(Config.parse(config), page_size=1)
            checkup = Checkup(
                parsed, Truto(parsed, self._workers(parsed), CHECKING, logger), logger
            )
            complaint = checkup.complaint()
        except AirbyteTracedException as failure:
            complaint = failure.message
        return complaint is None, complaint

    def read(
        self,
        logger: logging.Logger,
        config: Mapping[str, Any],
        catalog: ConfiguredAirbyteCatalog,
        state: list[AirbyteStateMessage] | None = None,
    ) -> Iterator[AirbyteMessage]:
        """Reads the segments of all accounts.

        Yields:
            The messages of the Airbyte protocol.

        Raises:
            AirbyteTracedException: If the configuration cannot be used, or at the end if an account
                could not be read.
        """
        parsed = Config.parse(config)
        for configured in catalog.streams:
            if configured.stream.name != STREAM:
                raise ConfigError(
                    f'The source has no stream "{configured.stream.name}". Refresh the schema of '
                    "the connection, and take the stream out of it."
                )
        if not catalog.streams:
            logger.warning("The catalog selects no stream, so nothing is read.")
            return
        workers = self._workers(parsed)
        truto = Truto(parsed, workers, READING, logger)
        configured = catalog.streams[0]
        begin = _state(configured.sync_mode, parsed, state or [], logger)
        schema = dict(configured.stream.json_schema)
        yield from Sync(parsed, workers, truto, begin, schema, self._ending, logger).messages()

    def _workers(self, config: Config) -> Workers:
        return Workers(config.num_workers, self._clock, self._sleep)


def _state(
    sync_mode: SyncMode, config: Config, messages: list[AirbyteStateMessage], logger: logging.Logger
) -> State:
    """The state that a read begins with."""
    try:
        blob = ConnectorStateManager(messages).get_stream_state(STREAM, None)
    except (ValueError, AttributeError, TypeError) as invalid:
        raise ConfigError(
            f"The state cannot be understood: {invalid}. Reset the connection's streams."
        ) from None
    now = datetime.now(timezone.utc)
    if sync_mode is not SyncMode.incremental:
        return FullRefreshState.load(blob, filters_of(config), now)
    state = IncrementalState.load(blob, filters_of(config), now)
    for account_id in state.marks_ahead:
        logger.warning(
            "The state of integrated account %s lies in the future: nothing that changed before "
            "then is sent in this sync. Reset the stream if that is not what you want.",
            account_id,
        )
    return state


@contextmanager
def _told_as_config_error(path: str, todo: str = "") -> Iterator[None]:
    """Tells in a sentence that a file cannot be read, or that it is not what it should be."""
    try:
        yield
    except OSError as failure:
        raise ConfigError(f"The file {path} cannot be read: {failure.strerror}.") from None
    except SchemaValidationError as invalid:
        error = invalid.errors[0]
        where = error.instance_path or "its root"
        why = f"{error.message} at {where}."
    except (ValueError, TypeError, AttributeError, RecursionError) as invalid:
        why = f"{str(invalid).rstrip('.')}."
    else:
        return
    raise ConfigError(f"{path} is not what it should be: {why}{todo}")
