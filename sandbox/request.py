"""A request as it arrived, and a log of all requests."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["segments", "workspaces", "accounts", "account", "meta", "other"]

_UNIFIED = "/unified/marketing-automation"
_KINDS: dict[str, Kind] = {
    f"{_UNIFIED}/segments": "segments",
    f"{_UNIFIED}/workspaces": "workspaces",
    f"{_UNIFIED}/segments/meta/list": "meta",
    "/integrated-account": "accounts",
}
_ONE_ACCOUNT = re.compile(r"/integrated-account/([^/]+)")


@dataclass(frozen=True)
class Request:
    """A request, and the status of its response.

    Attributes:
        method: HTTP method.
        path: Decoded path, without the query.
        query: All parameters in their order, decoded.
        headers: Headers; names are case-insensitive.
        at: `time.monotonic()` of the arrival.
        status: The status that was sent; None while it is pending or if the connection was dropped.
        account_id: The integrated account that it names, which may not exist.
        kind: The kind of its endpoint.
        target: Path and query, as they were sent.
    """

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    at: float
    status: int | None
    account_id: str | None
    kind: Kind
    target: str = ""

    def param(self, name: str) -> str | None:
        """Return the first value of a parameter, or None."""
        return next((value for key, value in self.query if key == name), None)

    def params(self, name: str) -> list[str]:
        """Return all values of a parameter."""
        return [value for key, value in self.query if key == name]


def parse_request(
    method: str, target: str, headers: Mapping[str, str], arrived_at: float
) -> Request:
    """Parse a request from its method, its target as sent, and its headers."""
    raw_path, _, raw_query = target.partition("?")
    path = unquote(raw_path)
    query = parse_qsl(raw_query, keep_blank_values=True)
    kind, account_id = _endpoint(method, path)
    if account_id is None:
        account_id = next((v for name, v in query if name == "integrated_account_id"), None)
    return Request(method, path, query, headers, arrived_at, None, account_id, kind, target)


def _endpoint(method: str, path: str) -> tuple[Kind, str | None]:
    if method != "GET":
        return "other", None
    if one_account := _ONE_ACCOUNT.fullmatch(path):
        return "account", one_account.group(1)
    return _KINDS.get(path, "other"), None


class RequestLog:
    """A log of the requests in order of arrival; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[int, Request] = {}
        self._next_number = 0

    def add(self, request: Request) -> int:
        """Add a request that has arrived, and return its number for `set_status`."""
        with self._lock:
            number = self._next_number
            self._next_number += 1
            self._requests[number] = request
            return number

    def set_status(self, number: int, status: int) -> None:
        """Set the status of a response; do nothing if the log has been cleared since."""
        with self._lock:
            request = self._requests.get(number)
            if request is not None:
                self._requests[number] = replace(request, status=status)

    def snapshot(self) -> list[Request]:
        """Return all requests so far."""
        with self._lock:
            return list(self._requests.values())

    def clear(self) -> None:
        """Remove all requests."""
        with self._lock:
            self._requests.clear()
