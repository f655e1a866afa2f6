"""Requests to Truto: paced, timed out, interpreted, and retried as long as it makes sense."""

import logging
import random
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from airbyte_cdk.sources.streams.http.error_handlers import ResponseAction
from airbyte_cdk.sources.streams.http.requests_native_auth import TokenAuthenticator

from source_truto_segments import errors, transport
from source_truto_segments.config import Config
from source_truto_segments.errors import ErrorResolution, ReadError, Scope
from source_truto_segments.pagination import CURSOR_PARAMETER
from source_truto_segments.rate_limiter import Delay, RateLimiter, parse_retry_after
from source_truto_segments.responses import (
    MalformedResponseError,
    Origin,
    parse_error,
    parse_object,
)
from source_truto_segments.transport import DeadlineAdapter
from source_truto_segments.worker_pool import MAX_WORKERS, Clock

_INITIAL_BACKOFF = 1.0
_MAX_BACKOFF = 60.0
# Truto's own 429 says Retry-After: 10; it is also a good guess for a 429 that says nothing.
_DEFAULT_RETRY_AFTER = 10.0
# A server that says "retry at once" time after time is asked ever less often.
_MAX_MIN_WAIT = 30.0

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
class Request:
    """The description of a request.

    Attributes:
        path: The path below the API's address.
        operation: The first half of an error's message: "Reading the segments of … x".
        account_id: The account of the request; None for a request of the environment.
        params: The query parameters.
    """

    path: str
    operation: str
    account_id: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


class TrutoClient:
    """What all requests of one run share: the connections, the limits and the retries.

    Args:
        config: The token and the address.
        clock: The time.
        policy: How long each request is tried for.
        logger: Where retries are logged.
        on_first_response: Called when a response has shown that the token is good, or when the
            first one broke off.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        policy: RetryPolicy,
        logger: logging.Logger,
        on_first_response: Callable[[], None] = lambda: None,
    ) -> None:
        self._api_url = config.api_url
        self._clock = clock
        self._policy = policy
        self._logger = logger
        self._limiter = RateLimiter(clock.now)
        self._session = _session(config)
        # Proxies and certificates of the environment: the same for every request.
        self._settings = self._session.merge_environment_settings(
            config.api_url, {}, None, None, None
        )
        self._others_may_start = threading.Event()
        self._on_first_response = on_first_response
        self._last_response_at = float("-inf")

    def fetch(self, request: Request, parse: Callable[[bytes], _T]) -> Generator[Delay, None, _T]:
        """Sends a request until a good response comes.

        Args:
            request: The request.
            parse: Reads the body; raises MalformedResponseError.

        Yields:
            What has to be waited before the next attempt.

        Returns:
            What `parse` gives.

        Raises:
            ReadError: If none comes, with the message of the error table.
        """
        prepared = self._prepare(request)
        began = self._clock.now()
        attempts, rate_limit_hits = 0, 0
        last_failure: _FailedAttempt | None = None
        while True:
            while (delay := self._limiter.try_acquire(request.account_id)) is not None:
                self._raise_if_too_long(delay, request, began, last_failure)
                yield delay
            outcome = self._send_once(prepared, request, parse)
            if not isinstance(outcome, _FailedAttempt):
                return outcome
            last_failure = outcome
            if outcome.resolution.action is ResponseAction.FAIL:
                raise _read_error(request, outcome)
            if outcome.resolution.action is ResponseAction.RATE_LIMITED:
                rate_limit_hits += 1
                wait = self._apply_rate_limit(request, outcome, rate_limit_hits)
                if not self._is_too_long(wait, began):
                    self._log_retry(request, outcome, wait)
            else:
                attempts += 1
                yield self._backoff(request, outcome, attempts, began)

    def get_object(
        self, path: str, params: Mapping[str, Any], operation: str, account_id: str | None
    ) -> dict[str, Any]:
        """Asks for an object that is no list, once and without retries.

        Raises:
            ReadError: If none comes.
        """
        request = Request(path, operation, account_id, params)
        outcome = self._send_once(self._prepare(request), request, parse_object, paced=False)
        if isinstance(outcome, _FailedAttempt):
            raise _read_error(request, outcome)
        return outcome

    def discard(self, account_id: str) -> None:
        """Drops what is known of an account that was read to its end."""
        self._limiter.discard(account_id)

    def _prepare(self, request: Request) -> requests.PreparedRequest:
        url = f"{self._api_url}/{request.path}"
        return self._session.prepare_request(requests.Request("GET", url, params=request.params))

    def _send_once(
        self,
        prepared: requests.PreparedRequest,
        request: Request,
        parse: Callable[[bytes], _T],
        *,
        paced: bool = True,
    ) -> "_T | _FailedAttempt":
        """Sends a request, which the limiter has counted if it is paced."""
        try:
            response = self._session.send(
                prepared, timeout=transport.TIMEOUT, allow_redirects=False, **self._settings
            )
        except requests.RequestException as error:
            failure = _transport_failure(prepared, error)
            if not failure.is_unreachable:
                # Whether the token is good is not known, but others may have more luck.
                self._let_others_start()
            return failure
        finally:
            if paced:
                self._limiter.release(request.account_id)
        self._logger.debug("GET %s: HTTP %s", prepared.url, response.status_code)
        self._last_response_at = self._clock.now()
        self._limiter.update_from_headers(request.account_id, response.headers)
        outcome = _classify(response, request, parse)
        is_refused = isinstance(outcome, _FailedAttempt) and outcome.resolution.scope is Scope.SYNC
        if not is_refused:
            self._let_others_start()
        return outcome

    def _let_others_start(self) -> None:
        if not self._others_may_start.is_set():
            self._others_may_start.set()
            self._on_first_response()

    def _apply_rate_limit(
        self, request: Request, failure: "_FailedAttempt", rate_limit_hits: int
    ) -> float:
        """Blocks what a 429 concerns, the account or all requests; gives the wait in seconds."""
        wait = failure.retry_after
        if wait is None:
            wait = _exponential(_DEFAULT_RETRY_AFTER, rate_limit_hits)
        wait = max(wait, min(2.0 ** (rate_limit_hits - 1), _MAX_MIN_WAIT))
        is_vendor = failure.origin is Origin.VENDOR
        account_id = request.account_id
        if account_id and not is_vendor and not self._limiter.is_nearly_exhausted(account_id):
            account_id = None
        reason = "the vendor's limit" if is_vendor else "Truto's limit"
        self._limiter.block(account_id, wait, reason)
        return wait

    def _backoff(
        self, request: Request, failure: "_FailedAttempt", attempts: int, began: float
    ) -> Delay:
        """The wait before the next attempt.

        Raises:
            ReadError: If there is no next attempt.
        """
        wait = failure.retry_after
        if wait is None:
            wait = _exponential(_INITIAL_BACKOFF, attempts)
        if attempts < self._policy.max_attempts and not self._is_too_long(wait, began):
            self._log_retry(request, failure, wait)
            reason = failure.resolution.message
            return Delay(wait, reason, request.account_id, is_rate_limit=False)
        if failure.is_unreachable and self._last_response_at <= began:
            # Nobody got through all the while: it is not this account's failure, and the others
            # need not find out one by one.
            resolution = replace(failure.resolution, scope=Scope.SYNC)
            failure = replace(failure, resolution=resolution)
        raise _read_error(request, failure, f", {attempts} times in a row" if attempts > 1 else "")

    def _raise_if_too_long(
        self, delay: Delay, request: Request, began: float, failure: "_FailedAttempt | None"
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
            # No account can be read; the others need not find out one by one.
            resolution = replace(resolution, scope=Scope.SYNC)
        raise _read_error(request, replace(failure, resolution=resolution))

    def _is_too_long(self, wait: float, began: float) -> bool:
        elapsed = self._clock.now() + wait - began
        return wait > self._policy.max_wait or elapsed > self._policy.max_elapsed

    def _log_retry(self, request: Request, failure: "_FailedAttempt", wait: float) -> None:
        self._logger.info(
            "%s: %s%s. Trying again in %.0f s.",
            request.operation,
            failure.resolution.message,
            failure.detail,
            wait,
        )


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

    resolution: ErrorResolution
    detail: str
    retry_after: float | None = None
    origin: Origin = Origin.TRUTO
    is_unreachable: bool = False


def _classify(
    response: requests.Response, request: Request, parse: Callable[[bytes], _T]
) -> "_T | _FailedAttempt":
    if not 200 <= response.status_code < 300:  # noqa: PLR2004 - the successes
        return _error_response(response, request)
    try:
        return parse(response.content)
    except MalformedResponseError as error:
        detail = f" (HTTP {response.status_code}; {error})"
        return _FailedAttempt(errors.MALFORMED, detail)


def _error_response(response: requests.Response, request: Request) -> _FailedAttempt:
    body = parse_error(response.content)
    resolution = errors.interpret_response(
        response.status_code,
        body,
        sent_cursor=CURSOR_PARAMETER in request.params,
        sent_limit="limit" in request.params,
        of_account=request.account_id is not None,
    )
    detail = errors.response_detail(response.status_code, body)
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
    """Whether a wait follows from a failure: a vendor's limit does not hold up the whole token."""
    is_rate_limit = failure.resolution.action is ResponseAction.RATE_LIMITED
    return is_rate_limit and (failure.origin is Origin.TRUTO or not delay.for_token)


def _read_error(request: Request, failure: _FailedAttempt, more: str = "") -> ReadError:
    detail = f"{failure.detail}{more}"
    return ReadError(failure.resolution, request.operation, request.account_id, detail)


class _Session(requests.Session):
    """Ignores redirects: requests parses their address even where they are not followed."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        del resp


def _session(config: Config) -> requests.Session:
    session = _Session()
    session.auth = TokenAuthenticator(config.token)
    session.headers["Accept"] = "application/json"
    adapter = DeadlineAdapter(
        pool_connections=1, pool_maxsize=config.num_workers or MAX_WORKERS, pool_block=False
    )
    session.mount("https://", adapter)
    session.mount("http://", adapter)  # ignore-https-check
    return session


def _exponential(initial: float, attempt: int) -> float:
    """Doubles from attempt to attempt, with a jitter that keeps many tasks from coming at once."""
    wait: float = min(initial * 2.0 ** (attempt - 1), _MAX_BACKOFF)
    return wait * random.uniform(0.75, 1.0)  # noqa: S311 - a jitter is no secret
