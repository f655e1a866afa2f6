"""Send requests to Truto: pace them, limit their time, interpret responses, and retry."""

import logging
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlsplit

import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.sources.streams.http.error_handlers import ResponseAction
from airbyte_cdk.sources.streams.http.requests_native_auth import TokenAuthenticator
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from typing_extensions import override

from source_truto_segments.truto import errors, transport
from source_truto_segments.truto.errors import ReadError, Resolution, Scope
from source_truto_segments.truto.excerpts import excerpt
from source_truto_segments.truto.machine import Proxy, connection_settings
from source_truto_segments.truto.outage import Outage
from source_truto_segments.truto.rate_limiter import Delay, RateLimiter, parse_retry_after
from source_truto_segments.truto.responses import (
    ErrorBody,
    ForeignResponseError,
    MalformedResponseError,
    Speaker,
    parse_error,
)

logger = logging.getLogger("airbyte")

CURSOR_PARAMETER = "next_cursor"
UNIFIED = "unified"

_INITIAL_BACKOFF = 1.0
_MAX_BACKOFF = 60.0
# Truto's own 429 has Retry-After: 10, which is also a good guess for a 429 without one.
_DEFAULT_RETRY_AFTER = 10.0
# Wait longer, up to this, each time a server asks for a short wait and then refuses again.
_MAX_WAIT_FLOOR = 120.0

_LIMITS = {
    Speaker.TRUTO: "Truto's limit",
    Speaker.VENDOR: "the vendor's limit",
    Speaker.GATEWAY: "the limit of a gateway, firewall or proxy",
}

_T = TypeVar("_T")


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try a request, in seconds.

    Attributes:
        max_retry: The most time from its first failure on.
        max_wait: The longest wait for a rate limit; if it would be longer, the request fails.
        max_elapsed: The most time from its first attempt on, including waits for rate limits.
        lifetime: The time for all requests together; an exchange that lasts longer is aborted.
        max_evidence_wait: The longest wait for a limit before a request of another account, which
            only shows whether a failure concerns that account, too.
    """

    max_retry: float
    max_wait: float
    max_elapsed: float
    lifetime: float = float("inf")
    max_evidence_wait: float = 10.0


# An outage of some minutes only costs time. A sync can also wait a quarter of an hour for a limit:
# only that account waits.
READ_POLICY = RetryPolicy(max_retry=300.0, max_wait=900.0, max_elapsed=3600.0)
# A user waits for the result of a check in front of a form.
CHECK_POLICY = RetryPolicy(
    max_retry=12.0, max_wait=15.0, max_elapsed=20.0, lifetime=24.0, max_evidence_wait=0.0
)


@dataclass(frozen=True)
class Request(Generic[_T]):
    """A GET request, and how to parse its response.

    Attributes:
        path: The path below the API's address.
        operation: The first half of an error's message: "Reading the segments of … x".
        parse: Parses the body; raises MalformedResponseError.
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
    def kind(self) -> str:
        """What the request reads: the unified API, or integrated accounts."""
        return self.path.partition("/")[0]

    @property
    def query(self) -> Mapping[str, Any]:
        """All query parameters; the cursor comes last, so that no other one can replace it."""
        if self.cursor is None:
            return self.params
        return {**self.params, CURSOR_PARAMETER: self.cursor}


class TrutoClient:
    """The HTTP client of a run, with its connections, limits and retries.

    Args:
        api_url: The API's address, without a trailing slash.
        token: The API token.
        policy: How long to try each request.
        now: Returns the time in seconds; monotonic.
        token_verified: Called when a response shows that the token is good, or when a request did
            not get through.
        max_connections: How many connections to keep open.
        share: How many clients share the token's limit; this one uses an equal part of it.
        quotes: Whether messages quote responses that do not have Truto's form.
    """

    def __init__(
        self,
        api_url: str,
        token: str,
        policy: RetryPolicy,
        now: Callable[[], float],
        *,
        token_verified: Callable[[], None] = lambda: None,
        max_connections: int,
        share: int,
        quotes: bool,
    ) -> None:
        self._api_url = api_url
        self._quotes = quotes
        self._policy = policy
        self._now = now
        self._limiter = RateLimiter(now, share)
        self._session = _session(token, max_connections, policy.lifetime)
        self._settings, self._proxy = connection_settings(self._session, api_url)
        self._outage = Outage(now)
        self._token_verified = token_verified
        # The last requests of each kind that succeeded, for up to two accounts. Repeating one shows
        # whether a failure concerns others.
        self._last_good: dict[str, Sequence[_Sent]] = {}
        self._last_sent_at = now()

    def fetch(self, request: Request[_T]) -> Generator[Delay, None, _T]:
        """Send a request, and retry it until it has a good response.

        Args:
            request: The request.

        Yields:
            The delay before the next attempt.

        Returns:
            The result of the request's `parse`.

        Raises:
            ReadError: If it fails for good, with the message from the error table.
        """
        prepared = self._prepare(request)
        began = self._now()
        attempts, rate_limit_hits = 0, 0
        failing_since: float | None = None
        failure: _FailedAttempt | None = None
        while True:
            while (delay := self._next_delay(request)) is not None:
                if delay.is_rate_limit:
                    self._raise_if_too_long(delay, request, began, failure)
                yield delay
            sent_at = self._now()
            waited = transport.MemoryBudget.waited()
            outcome = self._send_once(prepared, request)
            # A slow destination does not use up the request's time.
            began += transport.MemoryBudget.waited() - waited
            if not isinstance(outcome, _FailedAttempt):
                return outcome
            failure, action = outcome, outcome.resolution.response_action
            if action is ResponseAction.RATE_LIMITED:
                rate_limit_hits += 1
                wait = self._apply_rate_limit(request, failure, rate_limit_hits)
                if not self._is_too_long(wait, began):
                    _log_retry(request, failure, wait)
                # If the wait is too long, the next turn raises.
                continue
            if action is ResponseAction.RETRY:
                attempts += 1
                failing_since = sent_at if failing_since is None else failing_since
                elapsed = self._now() - failing_since
                wait = max(failure.retry_after or 0.0, _exponential(_INITIAL_BACKOFF, attempts))
                failure = yield from self._blocked_or_unavailable(request, failure, elapsed + wait)
                if elapsed + wait <= self._allowed(failure):
                    _log_retry(request, failure, wait)
                    reason = failure.resolution.error_message
                    yield Delay(wait, reason, request.account_id, is_rate_limit=False)
                    continue
                if attempts > 1:
                    detail = f"{failure.detail}, {attempts} times in {elapsed:,.0f} s"
                    failure = replace(failure, detail=detail)
            raise (yield from self._final_error(request, failure))

    def _final_error(
        self, request: Request[Any], failure: "_FailedAttempt"
    ) -> Generator[Delay, None, ReadError]:
        """Return the error of a request that failed for good, and decide what it concerns.

        If the failure could concern every account, repeat one or two of the last requests that
        succeeded. If one still succeeds, only this account has failed.
        """
        row = failure.resolution
        if row is errors.TIMED_OUT:
            row = self.timed_out
        is_general = row.of_account is not None or not failure.got_through
        if request.account_id and is_general and row is not errors.BLOCKED:
            evidence = yield from self._evidence(request)
            if evidence is None:
                row = replace(row, scope=Scope.SYNC)
            elif (
                row is errors.FORBIDDEN
                and request.kind == UNIFIED
                and not _reads_the_same_of_another(evidence, request)
            ):
                row = errors.MAYBE_FORBIDDEN
            else:
                row = row.of_account or row
            if evidence is None and not failure.got_through:
                detail = f"{failure.detail}; nothing else got through"
                failure = replace(failure, detail=detail)
        return _read_error(request, replace(failure, resolution=row))

    def _blocked_or_unavailable(
        self, request: Request[Any], failure: "_FailedAttempt", elapsed: float
    ) -> Generator[Delay, None, "_FailedAttempt"]:
        """Take Truto's 503 for a block of the account unless nothing else succeeds either."""
        may_be_blocked = failure.resolution is errors.BLOCKED and elapsed > self._allowed(failure)
        if not may_be_blocked or not self.has_succeeded or (yield from self._evidence(request)):
            return failure
        return replace(failure, resolution=errors.UNAVAILABLE)

    def _allowed(self, failure: "_FailedAttempt") -> float:
        """Return for how many seconds a failure may be retried."""
        return min(failure.resolution.retry_seconds, self._policy.max_retry)

    def _evidence(self, request: Request[Any]) -> Generator[Delay, None, "_Sent | None"]:
        """Return a request that still succeeds; rather one for the same of another account."""
        kinds = [*self._last_good.values()]
        known: list[_Sent] = [sent for of_kind in kinds for sent in reversed(of_kind)]
        known.sort(key=lambda sent: not _reads_the_same_of_another(sent, request))
        # The first one can fail for a reason of its own.
        for sent in known[:2]:
            if (yield from self._still_succeeds(sent)):
                return sent
        return None

    def _still_succeeds(self, sent: "_Sent") -> Generator[Delay, None, bool]:
        prepared, request = sent
        while (delay := self._limiter.try_acquire(request.account_id)) is not None:
            if delay.seconds > self._policy.max_evidence_wait:
                # It succeeded a moment ago, and a limit says nothing about other failures.
                return True
            yield delay
        outcome = self._send_once(prepared, request)
        if not isinstance(outcome, _FailedAttempt):
            return True
        return outcome.got_through and outcome.resolution.scope is Scope.ACCOUNT

    @property
    def has_succeeded(self) -> bool:
        """Whether any request has had a good response."""
        return bool(self._last_good)

    @property
    def awaits_first_response(self) -> bool:
        """Whether neither Truto nor a vendor has responded to any request yet."""
        return self._outage.never_reached

    @property
    def timed_out(self) -> Resolution:
        """The row for a request that had no response in time."""
        return errors.NEVER_ANSWERED if self.awaits_first_response else errors.TIMED_OUT

    @property
    def may_hear(self) -> bool:
        """Whether a response can still arrive: the last request was sent not too long ago."""
        return self._now() - self._last_sent_at <= transport.RESPONSE_TIMEOUT

    def discard(self, account_id: str) -> None:
        """Forget the limits of an account that was read completely."""
        self._limiter.discard(account_id)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _prepare(self, request: Request[Any]) -> requests.PreparedRequest:
        url = f"{self._api_url}/{request.path}"
        return self._session.prepare_request(requests.Request("GET", url, params=request.query))

    def _next_delay(self, request: Request[Any]) -> Delay | None:
        """Return the delay before a request may be sent; None if it was counted as sent."""
        wait = self._outage.wait()
        if wait:
            reason = "Truto to be reachable again"
            return Delay(wait, reason, for_token=True, is_rate_limit=False)
        delay = self._limiter.try_acquire(request.account_id)
        if delay is not None:
            self._outage.withdraw()
        return delay

    def _send_once(
        self, prepared: requests.PreparedRequest, request: Request[_T]
    ) -> "_T | _FailedAttempt":
        """Send a request that the limiter has counted."""
        self._last_sent_at = sent_at = self._now()
        try:
            outcome = self._exchange(prepared, request)
        except BaseException:
            # Let another request probe; otherwise all would wait for the result of this one.
            self._outage.withdraw()
            raise
        finally:
            self._limiter.release(request.account_id)
        if not isinstance(outcome, _FailedAttempt):
            good = self._last_good.get(request.kind, ())
            others = [sent for sent in good if sent.request.account_id != request.account_id]
            self._last_good[request.kind] = (*others[-1:], _Sent(prepared, request))
            self._outage.reached()
            self._token_verified()
        elif not outcome.got_through:
            # It is not known whether the token is good, but other requests may get through.
            self._outage.failed(sent_at)
            self._token_verified()
        else:
            self._outage.reached()
            if outcome.resolution.scope is Scope.ACCOUNT:
                self._token_verified()
        return outcome

    def _exchange(
        self, prepared: requests.PreparedRequest, request: Request[_T]
    ) -> "_T | _FailedAttempt":
        try:
            response = self._session.send(prepared, timeout=transport.TIMEOUT, **self._settings)
        except (AirbyteTracedException, requests.exceptions.InvalidSchema) as refused:
            # Airbyte Cloud filters requests, and explains in a sentence why it refuses an address.
            raise _refused_address(request, refused) from None
        except requests.RequestException as error:
            return _transport_failure(prepared, error, self._proxy)
        logger.debug(
            "GET %s of account %s: HTTP %s",
            excerpt(request.path),
            excerpt(request.account_id or "none"),
            response.status_code,
        )
        self._limiter.update_from_headers(request.account_id, response.headers)
        return _classify(response, request, quotes=self._quotes)

    def _apply_rate_limit(
        self, request: Request[Any], failure: "_FailedAttempt", rate_limit_hits: int
    ) -> float:
        """Block the account or all requests after a 429; return the wait in seconds."""
        wait = failure.retry_after
        if wait is None:
            wait = _exponential(_DEFAULT_RETRY_AFTER, rate_limit_hits)
        wait = max(wait, min(2.0 ** (rate_limit_hits - 1), _MAX_WAIT_FLOOR))
        is_vendor = failure.speaker is Speaker.VENDOR
        account_id = request.account_id
        if account_id and not is_vendor and self._limiter.concerns_token(account_id):
            account_id = None
        reason = _LIMITS[failure.speaker or Speaker.TRUTO]
        self._limiter.block(account_id, wait, reason)
        return wait

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


class _Sent(NamedTuple):
    prepared: requests.PreparedRequest
    request: Request[Any]


def _reads_the_same_of_another(sent: _Sent, request: Request[Any]) -> bool:
    is_same = sent.request.kind == request.kind
    return is_same and sent.request.account_id not in (request.account_id, None)


@dataclass(frozen=True)
class _FailedAttempt:
    """A request without a good response.

    Attributes:
        resolution: The row of the error table.
        detail: What Truto, the vendor or the network reported.
        speaker: Who reported it; None if no error response came.
        retry_after: The seconds that the server asks to wait; None if it does not ask.
        status: The HTTP status of an error response.
    """

    resolution: Resolution
    detail: str
    speaker: Speaker | None = None
    retry_after: float | None = None
    status: int | None = None

    @property
    def got_through(self) -> bool:
        """Whether the request reached Truto, and Truto was able to handle it."""
        if self.speaker is Speaker.VENDOR or self.resolution.response_action is ResponseAction.FAIL:
            return True
        is_limit = self.resolution.response_action is ResponseAction.RATE_LIMITED
        return self.speaker is Speaker.TRUTO and is_limit


def _classify(
    response: requests.Response, request: Request[_T], *, quotes: bool
) -> "_T | _FailedAttempt":
    status = response.status_code
    if 200 <= status < 300:  # noqa: PLR2004 - the successes
        try:
            return request.parse(response.content)
        except MalformedResponseError as error:
            detail = f" (HTTP {status}; {error if quotes else error.difference})"
            if isinstance(error, ForeignResponseError):
                return _FailedAttempt(errors.GATEWAY_ANSWERED, detail)
            return _FailedAttempt(errors.MALFORMED, detail)
    body = parse_error(response.content)
    if body.speaker is Speaker.GATEWAY and not quotes:
        body = ErrorBody()
    resolution = errors.interpret_response(
        status,
        body,
        sent_cursor=request.cursor is not None,
        of_account=request.account_id is not None,
    )
    is_redirect = resolution is errors.REDIRECTED
    location = response.headers.get("Location") if is_redirect else None
    detail = errors.response_detail(status, body, _host_of(location))
    is_limit = status == requests.codes.too_many_requests
    wait = parse_retry_after(response.headers, is_limit=is_limit)
    if resolution is errors.BLOCKED and wait is not None:
        resolution = errors.UNAVAILABLE
    return _FailedAttempt(resolution, detail, body.speaker, wait, status)


def _host_of(location: str | None) -> str | None:
    """Return the host of a redirect, never its path or query; None if it has none."""
    try:
        return urlsplit(location or "").hostname
    except ValueError:
        return None


def _transport_failure(
    prepared: requests.PreparedRequest, error: requests.RequestException, proxy: Proxy | None
) -> _FailedAttempt:
    host = urlsplit(str(prepared.url)).netloc
    row, where = errors.interpret_exception(error), host
    if proxy is not None:
        row = errors.through_proxy(row, proxy.variable, host)
        where = f"{host} through the proxy {excerpt(proxy.address)}"
    return _FailedAttempt(row, f" ({where}: {errors.root_cause(error)})")


def _refused_address(request: Request[Any], refused: Exception) -> ReadError:
    row = Resolution(
        ResponseAction.FAIL,
        FailureType.config_error,
        "this machine does not allow the address",
        "Check api_url in the source's configuration, and the proxy settings of the machine.",
        Scope.SYNC,
    )
    detail = f" ({excerpt(str(refused)).rstrip('.')})"
    return ReadError(row, request.operation, request.account_id, detail)


def _explains(failure: _FailedAttempt, delay: Delay) -> bool:
    """Return whether a failure is the reason for a delay; a vendor's never delays all requests."""
    is_rate_limit = failure.resolution.response_action is ResponseAction.RATE_LIMITED
    return is_rate_limit and (failure.speaker is not Speaker.VENDOR or not delay.for_token)


def _log_retry(request: Request[Any], failure: _FailedAttempt, wait: float) -> None:
    what = f"{failure.resolution.error_message}{failure.detail}"
    logger.info("%s: %s. Trying again in %.0f s.", request.operation, what, wait)


def _read_error(request: Request[Any], failure: _FailedAttempt) -> ReadError:
    return ReadError(
        failure.resolution,
        request.operation,
        request.account_id,
        failure.detail,
        failure.status,
        errors.guidance_for(failure.resolution, request.params),
    )


class _Session(requests.Session):
    """Follows no redirect; even without following, requests would parse its address."""

    @override
    def get_redirect_target(self, resp: requests.Response) -> None:
        del resp


def _session(token: str, max_connections: int, lifetime: float) -> requests.Session:
    session = _Session()
    # This also keeps requests from looking for a password in .netrc.
    session.auth = TokenAuthenticator(token)
    session.headers["Accept"] = "application/json"
    # Keep and send no cookies, whatever a response sets.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = transport.DeadlineAdapter(pool_maxsize=max_connections, lifetime=lifetime)
    session.mount("https://", adapter)
    session.mount("http://", adapter)  # ignore-https-check
    return session


def _exponential(initial: float, attempt: int) -> float:
    """Return a wait that doubles with each attempt, with a jitter that spreads many tasks."""
    wait: float = min(initial * 2.0 ** (attempt - 1), _MAX_BACKOFF)
    return wait * random.uniform(0.75, 1.0)  # noqa: S311 - a jitter is no secret
