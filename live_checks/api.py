"""Send few GET requests to a Truto API, paced and within a time limit."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Params = tuple[tuple[str, object], ...]

MAX_REQUESTS = 60
# Seconds until the last request may begin, so that the check takes three minutes at most.
MAX_SECONDS = 155.0
PAUSE = 0.5
TIMEOUT = 15.0
_MAX_RETRY_AFTER = 15.0
_MAX_FAILURES = 3
# requests wraps urllib3's error, which wraps the operating system's; a longer chain is a cycle.
_MAX_CAUSES = 8
_MAX_BYTES = 32 * 1024 * 1024

TRUTO, VENDOR, OTHER = "Truto", "the vendor", "neither Truto nor the vendor"

# A rate limit, or a temporary failure.
RETRIED = frozenset({429, 502, 503, 504})
_CAUSES: Mapping[type[Exception], str] = {
    requests.exceptions.ProxyError: "The proxy did not connect ({}). Check HTTPS_PROXY and "
    "NO_PROXY.",
    requests.exceptions.SSLError: "No secure connection could be established ({}). Check that the "
    "address serves https, and that this machine trusts its certificate (REQUESTS_CA_BUNDLE).",
    requests.Timeout: "No response came in time. Check the network, then run this again.",
    requests.ConnectionError: "The API could not be reached ({}). Check the network, and "
    "TRUTO_API_URL if it is set.",
}
_OTHER_CAUSE = "The request could not be sent ({}). Check TRUTO_API_URL and the proxy settings."


class NoAnswerError(Exception):
    """A request that got no response; its text says why."""


@dataclass(frozen=True)
class Answer:
    """A response.

    Attributes:
        status: The HTTP status.
        headers: The headers; names are case-insensitive.
        body: The parsed JSON; None if it is not JSON.
        size: The number of bytes of the body.
    """

    status: int
    headers: Mapping[str, str]
    body: Any
    size: int

    @property
    def good(self) -> bool:
        """Return whether it is a JSON object with status 200."""
        return self.status == requests.codes.ok and isinstance(self.body, dict)

    @property
    def speaker(self) -> str:
        """Return who sent an error. Those of Truto and the vendor have Truto's envelope."""
        body = self.body if isinstance(self.body, dict) else {}
        if body.get("truto_is_remote_error") is True:
            return VENDOR
        return TRUTO if "statusCode" in body and "message" in body else OTHER

    def __str__(self) -> str:
        if self.status == requests.codes.ok:
            return "200" if self.good else "200 without a JSON object"
        return f"{self.status} from {self.speaker}"


class _Bearer(AuthBase):
    """Sends the token. Without this class, requests would send one from ~/.netrc."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Api:
    """A Truto API.

    Args:
        url: Its URL, without a trailing slash.
        token: The API token.
        pause: Seconds between two requests.
        sleep: Waits for so many seconds.

    Attributes:
        count: The number of requests that were sent.
    """

    def __init__(
        self,
        url: str,
        token: str,
        pause: float = PAUSE,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.count = 0
        self._url = url
        self._token = token
        self._pause = pause
        self._sleep = sleep
        self._end = time.monotonic() + MAX_SECONDS
        self._failures = 0
        self._session = requests.Session()
        self._session.headers["Accept"] = "application/json"
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Only this machine can be asked over plain http, and it needs no proxy.
        self._session.trust_env = urlsplit(url).scheme == "https"

    def get(self, path: str, *params: tuple[str, object], token: str | None = None) -> Answer:
        """Return the response to a request, which is repeated once after a temporary failure.

        Raises:
            NoAnswerError: If there is no response, or no request or time is left.
        """
        answer = self._send(path, params, token)
        if answer.status in RETRIED:
            self._sleep(_seconds(answer.headers.get("Retry-After")))
            answer = self._send(path, params, token)
        return answer

    def _send(self, path: str, params: Params, token: str | None) -> Answer:
        if self.count:
            self._sleep(self._pause)
        left = self._end - time.monotonic()
        if self.count >= MAX_REQUESTS or left <= 0 or self._failures >= _MAX_FAILURES:
            raise NoAnswerError("Not asked: no request or no time was left.")
        self.count += 1
        timeout = min(TIMEOUT, left)
        try:
            with self._session.get(
                f"{self._url}/{path}",
                params=[(name, str(value)) for name, value in params],
                auth=_Bearer(token or self._token),
                timeout=(timeout / 3, timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                content = _content(response, time.monotonic() + timeout)
        except (OSError, HTTPError, ValueError) as failure:
            self._failures += 1
            causes = (text for kind, text in _CAUSES.items() if isinstance(failure, kind))
            raise NoAnswerError(next(causes, _OTHER_CAUSE).format(_reason(failure))) from None
        return Answer(response.status_code, response.headers, _json(content), len(content))


def _content(response: requests.Response, deadline: float) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(64 * 1024):
        content += chunk
        if time.monotonic() > deadline:
            raise requests.Timeout
        if len(content) > _MAX_BYTES:
            raise NoAnswerError(f"A response has more than {_MAX_BYTES // 1024**2} MB.")
    return bytes(content)


def _reason(failure: BaseException) -> str:
    """Return what the network or the proxy reported, or the name of the failure's type.

    Never use the text of requests or urllib3, because its URL contains the account's ID.
    """
    for _ in range(_MAX_CAUSES):
        inner = getattr(failure, "reason", None) or failure.__cause__ or failure.__context__
        if not isinstance(inner, BaseException):
            break
        failure = inner
    if isinstance(failure, OSError) and not isinstance(failure, requests.RequestException):
        # A proxy's words can be in it.
        return re.sub(r"[^ -~]", "", failure.strerror or str(failure))[:100]
    return type(failure).__name__


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _seconds(retry_after: str | None) -> float:
    try:
        return min(max(1.0, float(retry_after or 1)), _MAX_RETRY_AFTER)
    except ValueError:
        # It is a date.
        return _MAX_RETRY_AFTER
