"""The lists of Truto that this source reads."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import requests
from airbyte_cdk.models import SyncMode
from airbyte_cdk.sources.streams.core import StreamData
from airbyte_cdk.sources.streams.http import HttpStream

from source_truto_segments import errors
from source_truto_segments.client import Truto, TrutoClient, page_of
from source_truto_segments.config import Config
from source_truto_segments.envelope import Page
from source_truto_segments.errors import ReadError
from source_truto_segments.pagination import LoopError, LoopGuard, next_page_token
from source_truto_segments.records import Columns
from source_truto_segments.state import MARK_FIELD

_UNIFIED = "unified/marketing-automation"


class TrutoStream(HttpStream, ABC):
    """A list of Truto's, read page by page along its cursors.

    A slice is `{"integrated_account_id": …, "workspace_id": …}`, each where the list knows it.
    """

    def __init__(self, config: Config, truto: Truto) -> None:
        self._config = config
        self._truto = truto
        super().__init__()
        self._http_client = TrutoClient(self.name, self.logger, truto, self.doing)

    @property
    @abstractmethod
    def doing(self) -> str:
        """What a request for this list does, for messages; {} stands for the account's ID."""

    @property
    def url_base(self) -> str:
        """The API's address, with the slash that joins the path."""
        return f"{self._config.api_url}/"

    def read_pages(
        self, stream_slice: Mapping[str, Any], start: Mapping[str, str] | None = None
    ) -> Iterator[Page]:
        """Reads a list to its end.

        Args:
            stream_slice: Whose list it is.
            start: The token of the page to begin at; None for the first.

        Yields:
            Each page, empty ones too.

        Raises:
            ReadError: If a page cannot be read, or if the list runs in a circle.
            StoppedError: If the sync was stopped.
        """
        guard = LoopGuard(start)
        token = start
        while True:
            _, response = self._fetch_next_page(stream_slice, None, token)
            page = page_of(response)
            try:
                guard.check_records(page)
                yield page
                token = self.next_page_token(response)
                guard.check_cursor(token)
            except LoopError as loop:
                account_id = stream_slice.get("integrated_account_id")
                doing = self.doing.format(account_id)
                raise ReadError(errors.LOOPING, doing, account_id, f" ({loop})") from None
            if token is None:
                return

    def read_records(  # noqa: D102 - the CDK's
        self,
        sync_mode: SyncMode,  # noqa: ARG002
        cursor_field: list[str] | None = None,  # noqa: ARG002
        stream_slice: Mapping[str, Any] | None = None,
        stream_state: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Iterable[StreamData]:
        for page in self.read_pages(stream_slice or {}):
            yield from page.records

    def next_page_token(self, response: requests.Response) -> Mapping[str, Any] | None:  # noqa: D102
        return next_page_token(page_of(response))

    def parse_response(  # noqa: D102
        self, response: requests.Response, **_: Any
    ) -> Iterable[Mapping[str, Any]]:
        return page_of(response).records

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

    primary_key = [["integrated_account_id"], ["id"]]  # noqa: RUF012 - the CDK's
    cursor_field = MARK_FIELD
    doing = "Reading the segments of integrated account {}"

    def __init__(self, config: Config, truto: Truto, columns: Columns) -> None:
        self._columns = columns
        super().__init__(config, truto)

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
            **self._columns.params(needs_remote_data=config.tag_id is not None),
            **{name: value for name, value in optional.items() if value is not None},
            # The account and the cursor come last: no extra parameter can take their place.
            **super().request_params(stream_state, stream_slice, next_page_token),
        }


class Workspaces(TrutoStream):
    """The workspaces of an integrated account; Beehiiv, Brevo and Customer.io have them."""

    primary_key = "id"
    doing = "Listing the workspaces of integrated account {}"

    def path(self, **_: Any) -> str:  # noqa: D102
        return f"{_UNIFIED}/workspaces"


class IntegratedAccounts(TrutoStream):
    """The integrated accounts of the token's environment, whatever their status."""

    primary_key = "id"
    doing = "Listing the integrated accounts of the environment"

    def path(self, **_: Any) -> str:  # noqa: D102
        return "integrated-account"

    def request_params(  # noqa: D102
        self,
        stream_state: Mapping[str, Any] | None,
        stream_slice: Mapping[str, Any] | None = None,
        next_page_token: Mapping[str, Any] | None = None,
    ) -> MutableMapping[str, Any]:
        wanted = self._config.additional_accounts
        # A single name can be asked for; of several, Truto's documentation says nothing.
        filters = {"integration.name": wanted.integrations, "tenant_id": wanted.tenant_ids}
        return {
            **{name: next(iter(values)) for name, values in filters.items() if len(values) == 1},
            **super().request_params(stream_state, stream_slice, next_page_token),
        }
