"""The streams: the path, the parameters, the schema and the key of each of Truto's lists."""

from abc import ABC
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import requests
from airbyte_cdk.sources.streams.http import HttpStream
from airbyte_cdk.sources.streams.http.requests_native_auth import TokenAuthenticator

from source_truto_segments.changes import UPDATED_AT
from source_truto_segments.config import Config
from source_truto_segments.pagination import next_page_token
from source_truto_segments.records import ColumnSelection, account_record
from source_truto_segments.responses import parse_object, parse_page
from source_truto_segments.transport import TIMEOUT

SEGMENTS, WORKSPACES = "segments", "workspaces"
INTEGRATED_ACCOUNTS = "integrated_accounts"

_UNIFIED = "unified/marketing-automation"


class TrutoStream(HttpStream, ABC):
    """A list of Truto's. A slice is `{"integrated_account_id": …, "workspace_id": …}`.

    The stream declares; the requests of a sync are sent by `TrutoClient`.

    Args:
        config: The user's configuration.
        columns: The selected columns; None for all.
    """

    cursor_field = UPDATED_AT
    # What a request of the list does, for messages; {} stands for the account's ID.
    operation: str

    def __init__(self, config: Config, columns: ColumnSelection | None = None) -> None:
        self._config = config
        self.columns = columns or ColumnSelection.from_schema(self.name)
        super().__init__(authenticator=TokenAuthenticator(config.token))

    @property
    def url_base(self) -> str:
        """The API's address, with the slash that joins the path."""
        return f"{self._config.api_url}/"

    def next_page_token(self, response: requests.Response) -> Mapping[str, Any] | None:  # noqa: D102
        return next_page_token(parse_page(response.content))

    def parse_response(  # noqa: D102
        self, response: requests.Response, **_: Any
    ) -> Iterable[Mapping[str, Any]]:
        return parse_page(response.content).records

    def request_kwargs(self, *_: Any, **__: Any) -> Mapping[str, Any]:  # noqa: D102
        return {"timeout": TIMEOUT}

    def request_params(  # noqa: D102
        self,
        stream_state: Mapping[str, Any] | None,  # noqa: ARG002
        stream_slice: Mapping[str, Any] | None = None,
        next_page_token: Mapping[str, Any] | None = None,
    ) -> MutableMapping[str, Any]:
        account_id = (stream_slice or {}).get("integrated_account_id")
        params = {"integrated_account_id": account_id} if account_id else {}
        return {**params, **(next_page_token or {})}


class Segments(TrutoStream):
    """The segments of an integrated account."""

    primary_key = ["integrated_account_id", "id"]  # noqa: RUF012 - the CDK's
    operation = "Reading the segments of integrated account {}"

    def path(self, **_: Any) -> str:  # noqa: D102
        return f"{_UNIFIED}/segments"

    def request_params(  # noqa: D102
        self,
        stream_state: Mapping[str, Any] | None,
        stream_slice: Mapping[str, Any] | None = None,
        next_page_token: Mapping[str, Any] | None = None,
    ) -> MutableMapping[str, Any]:
        config = self._config
        remote_query: dict[str, list[str]] = {}
        for name, value in config.remote_query:
            remote_query.setdefault(f"remote_query[{name}]", []).append(value)
        optional = {
            "workspace[id]": (stream_slice or {}).get("workspace_id"),
            "tags[id]": config.tag_id,
            "limit": config.page_size,
        }
        return {
            **remote_query,
            **self.columns.query_params(needs_remote_data=config.tag_id is not None),
            **{name: value for name, value in optional.items() if value is not None},
            # The account and the cursor come last: no extra parameter can take their place.
            **super().request_params(stream_state, stream_slice, next_page_token),
        }


class Workspaces(TrutoStream):
    """The workspaces of an integrated account; Beehiiv, Brevo and Customer.io have them."""

    primary_key = ["integrated_account_id", "id"]  # noqa: RUF012
    operation = "Listing the workspaces of integrated account {}"

    def path(self, **_: Any) -> str:  # noqa: D102
        return f"{_UNIFIED}/workspaces"

    def request_params(  # noqa: D102
        self,
        stream_state: Mapping[str, Any] | None,
        stream_slice: Mapping[str, Any] | None = None,
        next_page_token: Mapping[str, Any] | None = None,
    ) -> MutableMapping[str, Any]:
        params = super().request_params(stream_state, stream_slice, next_page_token)
        return {**self.columns.query_params(), **params}


class IntegratedAccounts(TrutoStream):
    """The integrated accounts of the token's environment, whatever their status.

    A slice without an account is the environment's list.
    """

    primary_key = "id"
    operation = "Reading integrated account {}"
    list_operation = "Listing the integrated accounts of the environment"

    def path(self, *, stream_slice: Mapping[str, Any] | None = None, **_: Any) -> str:  # noqa: D102
        account_id = (stream_slice or {}).get("integrated_account_id")
        return f"integrated-account/{account_id}" if account_id else "integrated-account"

    def request_params(  # noqa: D102
        self,
        stream_state: Mapping[str, Any] | None,  # noqa: ARG002
        stream_slice: Mapping[str, Any] | None = None,
        next_page_token: Mapping[str, Any] | None = None,
    ) -> MutableMapping[str, Any]:
        if (stream_slice or {}).get("integrated_account_id"):
            return {}
        wanted = self._config.additional_accounts
        # A single name can be asked for; of several, Truto's documentation says nothing.
        filters = {"integration.name": wanted.integrations, "tenant_id": wanted.tenant_ids}
        return {
            **{name: next(iter(values)) for name, values in filters.items() if len(values) == 1},
            **(next_page_token or {}),
        }

    def next_page_token(self, response: requests.Response) -> Mapping[str, Any] | None:  # noqa: D102
        return super().next_page_token(response) if _is_list(response) else None

    def parse_response(  # noqa: D102
        self, response: requests.Response, **_: Any
    ) -> Iterable[Mapping[str, Any]]:
        content = response.content
        entries = parse_page(content).records if _is_list(response) else [parse_object(content)]
        return map(account_record, entries)


def _is_list(response: requests.Response) -> bool:
    """Whether it is the list of accounts; one account is not wrapped in one."""
    return urlsplit(response.url).path.endswith("/integrated-account")


STREAMS: Mapping[str, type[TrutoStream]] = {
    SEGMENTS: Segments,
    INTEGRATED_ACCOUNTS: IntegratedAccounts,
    WORKSPACES: Workspaces,
}
