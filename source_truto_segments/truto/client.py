"""Requests to Truto: paced, timed out, interpreted, and retried as long as it makes sense."""

import logging
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import requests
from airbyte_cdk.sources.streams.http.error_handlers import ResponseAction
from airbyte_cdk.sources.streams.http.requests_native_auth import TokenAuthenticator
from typing_extensions import override

from source_truto_segments.truto import errors, transport
from source_truto_segments.truto.errors import ReadError, Resolution, Scope
from source_truto_segments.truto.rate_limiter import Delay, RateLimiter, parse_retry_after
from source_truto_segments.truto.responses import MalformedResponseError, Origin, parse_error

logger = logging.getLogger("airbyte")

CURSOR_PARAMETER = "next_cursor"

_INITIAL_BACKOFF = 1.0
_MAX_BACKOFF = 60.0
# Truto's own 429 says Retry-After: 10; it is also a good guess for a 429 that says nothing.
_DEFAULT_RETRY_AFTER = 10.0
# Wait longer, up to this, each time a server asks for a short wait and then refuses again.
_MAX_WAIT_FLOOR = 120.0

_T = TypeVar("_T")


@dataclass(frozen=True)
class RetryPolicy:
    """How long one request is tried for.

    Attributes:
        max_attempts: How often it is sent, not counting those that hit a rate limit.
        max_wait: Seconds that one wait may take; a server that asks for more is not waited for.
        max_elapsed: Seconds from the first attempt after which it is not sent again.
    """

    max_attempts: int
    max_wait: float
    max_elapsed: float


# A sync can wait for an hourly limit of a vendor, as the wait holds up that account only.
READ_POLICY = RetryPolicy(max_attempts=6, max_wait=900.0, max_elapsed=3600.0)
# A user waits for the result of a check in front of a form.
CHECK_POLICY = RetryPolicy(max_attempts=3, max_wait=15.0, max_elapsed=30.0)


@dataclass(frozen=True)
class Request(Generic[_T]):
    """A GET request, and how its response is read.

    Attributes:
        path: The path below the API's address.
        operation: The first half of an error's message: "Reading the segments of … x".
        parse: Reads the body; raises MalformedResponseError.
        account_id: The account of the request; None for a request of the environment.
        params: The query parameters, without the cursor.
        cursor: The cursor of the page, as Truto sent it; None for the first page.
    """

    path: str
    operation: str
    parse: Callable[[bytes], _T]
    account_id: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    cursor: str | None = None

    @property
    def query(self) -> Mapping[str, Any]:
        """All query parameters; the cursor comes last, so that no other can take its place."""
        if self.cursor is None:
            return self.params
        return {**self.params, CURSOR_PARAMETER: self.cursor}


class TrutoClient:
    """What all requests of one run share: the connections, the limits and the retries.

    Args:
        api_url: The API's address, without a slash at its end.
        token: The API token.
        policy: How long each request is tried for.
        now: Returns the time in seconds; monotonic.
        token_verified: Called once, when a response has shown that the token is good, or when the
            first response broke off.
        max_connections: How many connections are kept open.
    """

    def __init__(
        self,
        api_url: str,
        token: str,
        policy: RetryPolicy,
        now: Callable[[], float],
        *,
        token_verified: Callable[[], None] = lambda: None,
        max_connections: int = 1,
    ) -> None:
        self._api_url = api_url
        self._policy = policy
        self._now = now
        self._limiter = RateLimiter(now)
        self._session = _session(token, max_connections)
        # Proxies and certificates of the environment: the same for every request.
        self._settings = self._session.merge_environment_settings(api_url, {}, None, None, None)
        self._token_is_verified = False
        self._report_token_verified = token_verified
        self._last_response_at = float("-inf")

    def fetch(self, request: Request[_T]) -> Generator[Delay, None, _T]:
        """Send a request until a good response comes.

        Args:
            request: The request.

        Yields:
            What has to be waited before the next attempt.

        Returns:
            What the request's `parse` returns.

        Raises:
            ReadError: If none comes, with the message of the error table.
        """
        prepared = self._prepare(request)
        began = self._now()
        attempts, rate_limit_hits = 0, 0
        last_failure: _FailedAttempt | None = None
        while True:
            while (delay := self._limiter.try_acquire(request.account_id)) is not None:
                self._raise_if_too_long(delay, request, began, last_failure)
                yield delay
            waited = transport.MemoryBudget.waited()
            outcome = self._send_once(prepared, request)
            # A slow destination does not use up the request's time.
            began += transport.MemoryBudget.waited() - waited
            if not isinstance(outcome, _FailedAttempt):
                return outcome
            last_failure = outcome
            if outcome.resolution.response_action is ResponseAction.FAIL:
                raise _read_error(request, outcome)
            if outcome.resolution.response_action is ResponseAction.RATE_LIMITED:
                rate_limit_hits += 1
                wait = self._apply_rate_limit(request, outcome, rate_limit_hits)
                if not self._is_too_long(wait, began):
                    _log_retry(request, outcome, wait)
            else:
                attempts += 1
                yield self._backoff(request, outcome, attempts, began)

    def fetch_once(self, request: Request[_T]) -> _T:
        """Send a request once, without pacing and retries.

        Raises:
            ReadError: If no good response comes.
        """
        outcome = self._send_once(self._prepare(request), request, paced=False)
        transport.MemoryBudget.release()
        if isinstance(outcome, _FailedAttempt):
            raise _read_error(request, outcome)
        return outcome

    def discard(self, account_id: str) -> None:
        """Drop what is known of an account that was read completely."""
        self._limiter.discard(account_id)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _prepare(self, request: Request[Any]) -> requests.PreparedRequest:
        url = f"{self._api_url}/{request.path}"
        return self._session.prepare_request(requests.Request("GET", url, params=request.query))

    def _send_once(
        self, prepared: requests.PreparedRequest, request: Request[_T], *, paced: bool = True
    ) -> "_T | _FailedAttempt":
        """Send a request, which the limiter has counted if it is paced."""
        try:
            response = self._session.send(
                prepared, timeout=transport.TIMEOUT, allow_redirects=False, **self._settings
            )
        except requests.RequestException as error:
            failure = _transport_failure(prepared, error)
            if not failure.is_unreachable:
                # Whether the token is good is not known, but others may have more luck.
                self._note_token_verified()
            return failure
        finally:
            if paced:
                self._limiter.release(request.account_id)
        logger.debug("GET %s: HTTP %s", prepared.url, response.status_code)
        self._last_response_at = self._now()
        self._limiter.update_from_headers(request.account_id, response.headers)
        outcome = _classify(response, request)
        is_refused = isinstance(outcome, _FailedAttempt) and outcome.resolution.scope is Scope.SYNC
        if not is_refused:
            self._note_token_verified()
        return outcome

    def _note_token_verified(self) -> None:
        if not self._token_is_verified:
            self._token_is_verified = True
            self._report_token_verified()

    def _apply_rate_limit(
        self, request: Request[Any], failure: "_FailedAttempt", rate_limit_hits: int
    ) -> float:
        """Block what a 429 concerns, the account or all requests; return the wait in seconds."""
        wait = failure.retry_after
        if wait is None:
            wait = _exponential(_DEFAULT_RETRY_AFTER, rate_limit_hits)
        wait = max(wait, min(2.0 ** (rate_limit_hits - 1), _MAX_WAIT_FLOOR))
        is_vendor = failure.origin is Origin.VENDOR
        account_id = request.account_id
        if account_id and not is_vendor and self._limiter.concerns_token(account_id):
            account_id = None
        reason = "the vendor's limit" if is_vendor else "Truto's limit"
        self._limiter.block(account_id, wait, reason)
        return wait

    def _backoff(
        self, request: Request[Any], failure: "_FailedAttempt", attempts: int, began: float
    ) -> Delay:
        """Return the wait before the next attempt.

        Raises:
            ReadError: If there is no next attempt.
        """
        wait = failure.retry_after
        if wait is None:
            wait = _exponential(_INITIAL_BACKOFF, attempts)
        if attempts < self._policy.max_attempts and not self._is_too_long(wait, began):
            _log_retry(request, failure, wait)
            reason = failure.resolution.error_message
            return Delay(wait, reason, request.account_id, is_rate_limit=False)
        if failure.is_unreachable and self._last_response_at <= began:
            # No request has succeeded since this one began: the network is down, so fail the
            # sync, not each account.
            resolution = replace(failure.resolution, scope=Scope.SYNC)
            failure = replace(failure, resolution=resolution)
        raise _read_error(request, failure, f", {attempts} times in a row" if attempts > 1 else "")

    def _raise_if_too_long(
        self, delay: Delay, request: Request[Any], began: float, failure: "_FailedAttempt | None"
    ) -> None:
        if not self._is_too_long(delay.seconds, began):
            return
        if failure is None or not _explains(failure, delay):
            detail = f" ({delay.seconds:,.0f} s for {delay.reason})"
            failure = _FailedAttempt(errors.MAX_WAIT_EXCEEDED, detail)
        else:
            detail = f"{failure.detail}, and the wait would be {delay.seconds:,.0f} s"
            failure = replace(failure, detail=detail)
        resolution = failure.resolution
        if delay.for_token and delay.seconds > self._policy.max_wait:
            # No account can be read: fail the sync, not each account.
            resolution = replace(resolution, scope=Scope.SYNC)
        raise _read_error(request, replace(failure, resolution=resolution))

    def _is_too_long(self, wait: float, began: float) -> bool:
        elapsed = self._now() + wait - began
        return wait > self._policy.max_wait or elapsed > self._policy.max_elapsed


@dataclass(frozen=True)
class _FailedAttempt:
    """A request without a good response.

    Attributes:
        resolution: The row of the error table.
        detail: What Truto, the vendor or the network reported.
        retry_after: The seconds that the server asks to wait; None if it does not say.
        origin: Who failed.
        is_unreachable: Whether no connection was made at all.
    """

    resolution: Resolution
    detail: str
    retry_after: float | None = None
    origin: Origin = Origin.TRUTO
    is_unreachable: bool = False


def _classify(response: requests.Response, request: Request[_T]) -> "_T | _FailedAttempt":
    status = response.status_code
    if 200 <= status < 300:  # noqa: PLR2004 - the successes
        try:
            return request.parse(response.content)
        except MalformedResponseError as error:
            return _FailedAttempt(errors.MALFORMED, f" (HTTP {status}; {error})")
    body = parse_error(response.content)
    resolution = errors.interpret_response(
        status,
        body,
        sent_cursor=request.cursor is not None,
        sent_limit="limit" in request.params,
        of_account=request.account_id is not None,
    )
    detail = errors.response_detail(status, body)
    return _FailedAttempt(resolution, detail, parse_retry_after(response.headers), body.origin)


def _transport_failure(
    prepared: requests.PreparedRequest, error: requests.RequestException
) -> _FailedAttempt:
    host = urlsplit(str(prepared.url)).netloc
    return _FailedAttempt(
        errors.interpret_exception(error),
        f" ({host}: {errors.root_cause(error)})",
        is_unreachable=errors.is_unreachable(error),
    )


def _explains(failure: _FailedAttempt, delay: Delay) -> bool:
    """Return whether a wait follows from a failure; no vendor's limit holds up the whole token."""
    is_rate_limit = failure.resolution.response_action is ResponseAction.RATE_LIMITED
    return is_rate_limit and (failure.origin is Origin.TRUTO or not delay.for_token)


def _log_retry(request: Request[Any], failure: _FailedAttempt, wait: float) -> None:
    what = f"{failure.resolution.error_message}{failure.detail}"
    logger.info("%s: %s. Trying again in %.0f s.", request.operation, what, wait)


def _read_error(request: Request[Any], failure: _FailedAttempt, more: str = "") -> ReadError:
    detail = f"{failure.detail}{more}"
    return ReadError(failure.resolution, request.operation, request.account_id, detail)


class _Session(requests.Session):
    """Ignores redirects: requests parses their address even where they are not followed."""

    @override
    def get_redirect_target(self, resp: requests.Response) -> None:
        del resp


def _session(token: str, max_connections: int) -> requests.Session:
    session = _Session()
    session.auth = TokenAuthenticator(token)
    session.headers["Accept"] = "application/json"
    adapter = transport.DeadlineAdapter(
        pool_connections=1, pool_maxsize=max_connections, pool_block=False
    )
    session.mount("https://", adapter)
    session.mount("http://", adapter)  # ignore-https-check
    return session


def _exponential(initial: float, attempt: int) -> float:
    """Double from attempt to attempt, with a jitter that keeps many tasks from coming at once."""
    wait: float = min(initial * 2.0 ** (attempt - 1), _MAX_BACKOFF)
    return wait * random.uniform(0.75, 1.0)  # noqa: S311 - a jitter is no secret
