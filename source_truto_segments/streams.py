"""The streams: the request, the columns and the key of each of Truto's lists."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

import requests
from airbyte_cdk.sources.streams.http import HttpStream
from airbyte_cdk.sources.streams.http.error_handlers import BackoffStrategy, ErrorHandler
from airbyte_cdk.sources.streams.http.requests_native_auth import TokenAuthenticator
from typing_extensions import override

from source_truto_segments.config import INTEGRATIONS, Config
from source_truto_segments.records.columns import (
    UPDATED_AT,
    ColumnSelection,
    Row,
    coerce_record,
)
from source_truto_segments.records.values import without_nul
from source_truto_segments.truto.account_objects import (
    HAS_OVERRIDE,
    integration_of,
    is_account_id,
    label_of,
    parse_account,
    parse_account_list,
)
from source_truto_segments.truto.client import CURSOR_PARAMETER, Request
from source_truto_segments.truto.errors import RetryAfterBackoff, TableErrorHandler
from source_truto_segments.truto.excerpts import excerpt
from source_truto_segments.truto.responses import Page, parse_cursor, parse_page
from source_truto_segments.truto.transport import TIMEOUT
from source_truto_segments.truto.vendors import VENDORS

SEGMENTS, WORKSPACES = "segments", "workspaces"
INTEGRATED_ACCOUNTS = "integrated_accounts"

# The key of a partition, and the column with the account that a row belongs to.
ACCOUNT_KEY = "integrated_account_id"
# The partition of the environment's list of accounts, which has no account of its own.
ENVIRONMENT = ""

_UNIFIED = "unified/marketing-automation"
_TAGS_PATHS = [vendor.tags_path for vendor in VENDORS.values() if vendor.tags_path]

Slice = Mapping[str, Any]


class TrutoStream(HttpStream, ABC):
    """One of Truto's lists. A slice is `{"integrated_account_id": …, "workspace_id": …}`.

    A subclass declares the list once, in `request_for` and `rows`. A sync sends these requests with
    `TrutoClient`, for many accounts concurrently. The CDK's hooks below use the same declaration
    for a plain read of one slice with `read_records`.

    Args:
        config: The user's configuration.
        columns: The selected columns; None for all.
    """

    cursor_field = UPDATED_AT

    def __init__(self, config: Config, columns: ColumnSelection | None = None) -> None:
        self._config = config
        self.columns = columns or ColumnSelection.from_schema(self.name)
        super().__init__(authenticator=TokenAuthenticator(config.token))

    @abstractmethod
    def request_for(self, stream_slice: Slice, *, first_read: bool = True) -> Request[Page]:
        """Return the request for a slice's first page.

        Args:
            stream_slice: The slice.
            first_read: False if the slice is read again because records are missing. A second read
                is independent evidence, so it leaves out parameters that only shorten the list.
        """

    def rows(self, page: Page, stream_slice: Slice) -> Iterator[Row]:
        """Yield a page's records with the selected columns, each with what it lost."""
        added = {k: without_nul(value) for k, value in stream_slice.items() if value is not None}
        for record in self.select(page.records):
            coerced, changes = coerce_record(
                self.columns.project({**record, **added}),
                self.columns,
                may_be_deep=page.digest is None,
                may_have_nul=page.may_have_nul,
                max_size=page.size,
            )
            yield self.columns.project(coerced), changes

    def select(self, records: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        """Return the records that pass the user's filters, which Truto may have ignored."""
        return records

    @property
    @override
    def url_base(self) -> str:
        return f"{self._config.api_url}/"

    @override
    def path(self, *, stream_slice: Slice | None = None, **_: Any) -> str:
        return self.request_for(stream_slice or {}).path

    @override
    def request_params(
        self,
        stream_state: Mapping[str, Any] | None,
        stream_slice: Slice | None = None,
        next_page_token: Mapping[str, Any] | None = None,
    ) -> MutableMapping[str, Any]:
        return {**self.request_for(stream_slice or {}).params, **(next_page_token or {})}

    @override
    def next_page_token(self, response: requests.Response) -> Mapping[str, Any] | None:
        cursor = parse_cursor(response.content)
        return None if cursor is None else {CURSOR_PARAMETER: cursor}

    @override
    def parse_response(
        self, response: requests.Response, *, stream_slice: Slice | None = None, **_: Any
    ) -> Iterable[Mapping[str, Any]]:
        page = self.request_for(stream_slice or {}).parse(response.content)
        return (row for row, _ in self.rows(page, stream_slice or {}))

    @override
    def request_kwargs(self, *_: Any, **__: Any) -> Mapping[str, Any]:
        return {"timeout": TIMEOUT}

    @override
    def get_error_handler(self) -> ErrorHandler:
        return TableErrorHandler()

    @override
    def get_backoff_strategy(self) -> BackoffStrategy:
        return RetryAfterBackoff()


class Segments(TrutoStream):
    """The segments of an integrated account."""

    primary_key = [ACCOUNT_KEY, "id"]  # noqa: RUF012 - the CDK's

    @override
    def request_for(self, stream_slice: Slice, *, first_read: bool = True) -> Request[Page]:
        # No page size here: it depends on the account's vendor, see PageSizes.
        del first_read
        config, account_id = self._config, stream_slice[ACCOUNT_KEY]
        remote_query: dict[str, list[str]] = {}
        for name, value in config.remote_query:
            remote_query.setdefault(f"remote_query[{name}]", []).append(value)
        optional = {
            "workspace[id]": stream_slice.get("workspace_id"),
            "tags[id]": config.tag_id,
        }
        params = {
            **remote_query,
            **self.columns.query_params(needs_remote_data=config.tag_id is not None),
            **{name: value for name, value in optional.items() if value is not None},
            # The account comes last, so that no extra parameter can replace it.
            ACCOUNT_KEY: account_id,
        }
        operation = f"Reading the segments of integrated account {excerpt(account_id)}"
        return Request(f"{_UNIFIED}/segments", operation, parse_page, account_id, params)

    @override
    def select(self, records: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        tag_id = self._config.tag_id
        return (r for r in records if tag_id is None or not _lacks_tag(r, tag_id))


class Workspaces(TrutoStream):
    """The workspaces of an integrated account; Beehiiv, Brevo and Customer.io have them."""

    primary_key = [ACCOUNT_KEY, "id"]  # noqa: RUF012 - the CDK's

    @override
    def request_for(self, stream_slice: Slice, *, first_read: bool = True) -> Request[Page]:
        del first_read
        account_id = stream_slice[ACCOUNT_KEY]
        params = {**self.columns.query_params(), ACCOUNT_KEY: account_id}
        operation = f"Listing the workspaces of integrated account {excerpt(account_id)}"
        return Request(f"{_UNIFIED}/workspaces", operation, parse_page, account_id, params)


class IntegratedAccounts(TrutoStream):
    """The integrated accounts of the token's environment, whatever their status.

    A slice without an account is the environment's list.
    """

    primary_key = "id"

    @override
    def request_for(self, stream_slice: Slice, *, first_read: bool = True) -> Request[Page]:
        account_id = stream_slice.get(ACCOUNT_KEY)
        if account_id:
            operation = f"Reading integrated account {account_id}"
            path = f"integrated-account/{account_id}"
            parse = partial(parse_account, account_id=account_id)
            return Request(path, operation, parse, account_id)
        operation = "Listing the integrated accounts of the environment"
        params = self._filters() if first_read else {}
        return Request("integrated-account", operation, self._parse_list, params=params)

    @override
    def rows(self, page: Page, stream_slice: Slice) -> Iterator[Row]:
        return super().rows(page, {})

    @override
    def select(self, records: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        # Only the sync uses HAS_OVERRIDE.
        return ({k: v for k, v in record.items() if k != HAS_OVERRIDE} for record in records)

    def _filters(self) -> Mapping[str, Any]:
        wanted = self._config.account_list
        if wanted is None:
            return {}
        # Truto's documentation describes a filter by a single name, not by several. A name that is
        # not a vendor's can be a label, which Truto would not find.
        names = wanted.integrations if wanted.integrations <= INTEGRATIONS else ()
        filters = {"integration.name": names, "tenant_id": wanted.tenant_ids}
        return {name: next(iter(values)) for name, values in filters.items() if len(values) == 1}

    def _parse_list(self, content: bytes) -> Page:
        return parse_account_list(content, self._selects_entry)

    def _selects_entry(self, entry: Mapping[str, Any]) -> bool:
        """Return whether an entry is wanted, or lacks the ID or integration to decide it."""
        wanted, account_id, integration = (
            self._config.account_list,
            entry.get("id"),
            integration_of(entry),
        )
        if wanted is None or not is_account_id(account_id):
            return True
        if not wanted.in_shard(account_id.lower()):
            return False
        if integration["name"] is None:
            return True
        return account_id.lower() in self._config.configured_account_ids or wanted.matches(
            integration["name"],
            integration.get("category"),
            entry.get("tenant_id"),
            label_of(integration),
        )


STREAMS = (SEGMENTS, INTEGRATED_ACCOUNTS, WORKSPACES)


class Streams(NamedTuple):
    """All streams, with the columns that a catalog selects."""

    segments: Segments
    integrated_accounts: IntegratedAccounts
    workspaces: Workspaces

    @classmethod
    def build(cls, config: Config, **columns: ColumnSelection) -> "Streams":
        """Build each stream once; a stream without a selection has all columns."""
        return cls(
            Segments(config, columns.get(SEGMENTS)),
            IntegratedAccounts(config, columns.get(INTEGRATED_ACCOUNTS)),
            Workspaces(config, columns.get(WORKSPACES)),
        )


def read_filters(config: Config, stream_name: str) -> dict[str, Any]:
    """Return the filters of a stream's read, as digests.

    A state that was written with other filters would hide or delete records. The selected accounts
    are not a filter, as the state has an entry for each account.
    """
    if stream_name != SEGMENTS:
        return {}
    filters = {
        "workspace_id": config.workspace_id,
        "tag_id": config.tag_id,
        "remote_query": [list(pair) for pair in config.remote_query],
    }
    return {name: filter_digest(value) for name, value in filters.items() if value}


def filter_digest(value: Any) -> str:
    """Return the digest that a state has instead of a filter's value, as that can be private.

    The order of the names in remote_query does not change it; the order of one name's values does.
    """
    if isinstance(value, list):
        value = sorted(value, key=lambda pair: str(pair[:1]) if isinstance(pair, list) else "")
    return blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def _lacks_tag(record: Mapping[str, Any], tag_id: str) -> bool:
    """Return whether a record lists its tags, but not this one.

    A vendor without tags ignores the filter, so all its segments pass.
    """
    return any(
        isinstance(tags, list)
        and all(not isinstance(tag, Mapping) or tag.get("id") != tag_id for tag in tags)
        for tags in (_nested(record.get("remote_data"), path) for path in _TAGS_PATHS)
    )


def _nested(value: Any, path: Iterable[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
