from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from sandbox import DEFAULT_TOKEN, Account, Environment, Sandbox

MAX_PAGES = 50

Params = dict[str, Any]


class Client:
    """A client of the sandbox that sends its token by default."""

    SEGMENTS = "/unified/marketing-automation/segments"
    WORKSPACES = "/unified/marketing-automation/workspaces"
    META = "/unified/marketing-automation/segments/meta/list"
    ACCOUNTS = "/integrated-account"

    def __init__(self, sandbox: Sandbox, session: requests.Session) -> None:
        self.sandbox = sandbox
        self.session = session

    def get(
        self, path: str, params: Params | None = None, token: str | None = DEFAULT_TOKEN
    ) -> requests.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.session.get(
            self.sandbox.url + path,
            params=params,
            headers=headers,
            timeout=5,
            allow_redirects=False,
        )

    def segments(self, account_id: str = "a", params: Params | None = None) -> requests.Response:
        return self.get(self.SEGMENTS, {"integrated_account_id": account_id, **(params or {})})

    def workspaces(self, account_id: str = "a", params: Params | None = None) -> requests.Response:
        return self.get(self.WORKSPACES, {"integrated_account_id": account_id, **(params or {})})

    def meta(self, account_id: str = "a") -> requests.Response:
        return self.get(self.META, {"integrated_account_id": account_id})

    def accounts(self, params: Params | None = None) -> requests.Response:
        return self.get(self.ACCOUNTS, params)

    def pages(
        self, path: str = SEGMENTS, params: Params | None = None, most: int = MAX_PAGES
    ) -> list[dict[str, Any]]:
        """Return all pages, or the first `most` of them."""
        named = {} if path == self.ACCOUNTS else {"integrated_account_id": "a"}
        query: Params = {**named, **(params or {})}
        pages: list[dict[str, Any]] = []
        while len(pages) < most:
            response = self.get(path, query)
            assert response.ok, response.text
            pages.append(response.json())
            cursor = pages[-1].get("next_cursor")
            if not cursor:
                break
            query["next_cursor"] = cursor
        return pages


Serve = Callable[..., Client]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve accounts in an environment with these settings, until the test ends."""
    with ExitStack() as running:

        def start(*accounts: Account, **settings: Any) -> Client:
            sandbox = running.enter_context(Sandbox(Environment(list(accounts), **settings)))
            session = running.enter_context(requests.Session())
            session.trust_env = False  # no proxy between a test and its own machine
            return Client(sandbox, session)

        yield start
