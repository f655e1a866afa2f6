"""Requests to Truto: paced, timed out, judged, and retried as long as it makes sense."""

import logging
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import requests
from airbyte_cdk.sources.streams.http.http_client import HttpClient
from airbyte_cdk.sources.streams.http.requests_native_auth import TokenAuthenticator

from source_truto_segments import errors
from source_truto_segments.config import Config
from source_truto_segments.envelope import (
    MalformedAnswerError,
    Origin,
    Page,
    parse_error,
    parse_object,
    parse_page,
)
from source_truto_segments.errors import Action, Meaning, ReadError, Scope
from source_truto_segments.pagination import CURSOR_PARAMETER
from source_truto_segments.rate_limits import CallBudget, Wait, announced_wait
from source_truto_segments.transport import WholeAnswers
from source_truto_segments.workers import Workers

# Seconds to connect, and seconds without a byte of the answer. Truto waits for the vendor, which
# can take long; nothing that takes a minute comes at all.
TIMEOUT = (10.0, 60.0)

_FIRST_BACKOFF = 1.0
_LONGEST_BACKOFF = 60.0
# Truto's own 429 says Retry-After: 10; it is also a good guess for a 429 that says nothing.
_RATE_LIMIT_BACKOFF = 10.0
# A server that says "retry at once" time after time is asked ever less often.
_LONGEST_FLOOR = 30.0

_PAGE = "truto_page"

_Outcome: TypeAlias = "requests.Response | _Miss"


@dataclass(frozen=True)
class Patience:
    """How long one request is tried for.

    Attributes:
        attempts: How often it is sent, not counting those that met a rate limit.
        longest_wait: Seconds that one wait may take; a server that asks for more is not waited for.
        total_wait: Seconds from the first attempt after which it is not sent again.
    """

    attempts: int
    longest_wait: float
    total_wait: float


# A sync can wait for an hourly limit of a vendor, as the wait holds up that account only.
READING = Patience(attempts=6, longest_wait=900.0, total_wait=3600.0)
# Somebody waits for the answer of a check in front of a form.
CHECKING = Patience(attempts=3, longest_wait=15.0, total_wait=30.0)


@dataclass(frozen=True)
class Call:
    """What a request is for.

    Attributes:
        doing: The first half of an error's sentence: "Reading the segments of … x".
        account_id: The account of the request; None for a request of the environment.
        sent_cursor: Whether it carries a cursor.
    """

    doing: str
    account_id: str | None
    sent_cursor: bool


class Truto:
    """What all streams of one run share: the connections, the call budget and the workers.

    Args:
        config: The token and the number of workers.
        workers: The places to work in.
        patience: How long each request is tried for.
        logger: Where retries are told.
    """

    def __init__(
        self, config: Config, workers: Workers, patience: Patience, logger: logging.Logger
    ) -> None:
        self.budget = CallBudget(workers.clock)
        self.workers = workers
        self.session = _session(config)
        # Proxies and certificates of the environment: the same for every request.
        self._settings = self.session.merge_environment_settings(
            config.api_url, {}, None, None, None
        )
        self._patience = patience
        self._logger = logger
        self._token_is_proven = threading.Event()
        self._first_contact = threading.Lock()
        self._waits: dict[str | None, Wait] = {}
        self._answered_at = float("-inf")

    @property
    def waits(self) -> Mapping[str | None, Wait]:
        """The rate limits that are waited for now, by account; None is the whole token."""
        return dict(self._waits)

    def send(self, request: requests.PreparedRequest, call: Call) -> requests.Response:
        """Sends a request until a good page comes.

        Raises:
            ReadError: If none comes, in the words of the error table.
            StoppedError: If the sync was stopped.
        """
        began = self.workers.clock()
        attempts, limits_met = 0, 0
        last_miss: _Miss | None = None
        while True:
            self._wait_for_budget(call, began, last_miss)
            outcome = self._attempt(request, call)
            if isinstance(outcome, requests.Response):
                return outcome
            last_miss = outcome
            if outcome.meaning.action is Action.FAIL:
                raise _failure(call, outcome)
            if outcome.meaning.action is Action.RATE_LIMITED:
                limits_met += 1
                self._hold(call, outcome, limits_met)
            else:
                attempts += 1
                self._back_off(call, outcome, attempts, began)

    def ask(self, url: str, params: Mapping[str, str], doing: str) -> dict[str, Any]:
        """Asks once for an object that is no list, and without retries.

        Raises:
            ReadError: If none comes.
        """
        call = Call(doing, params.get("integrated_account_id"), sent_cursor=False)
        request = self.session.prepare_request(requests.Request("GET", url, params=params))
        try:
            response = self._exchange(request)
            if response.status_code == requests.codes.ok:
                return parse_object(response.content)
        except requests.RequestException as failure:
            raise _failure(call, _broken_off(request, failure)) from None
        except MalformedAnswerError as malformed:
            raise _failure(call, _Miss(errors.MALFORMED, f" ({malformed})")) from None
        raise _failure(call, _refused(response, call))

    def _attempt(self, request: requests.PreparedRequest, call: Call) -> _Outcome:
        """Sends a request once; the call of the budget was taken."""
        try:
            with self._alone_until_token_is_proven():
                return self._judge(self._exchange(request), call)
        except requests.RequestException as failure:
            miss = _broken_off(request, failure)
            if miss.meaning.scope is Scope.SYNC:
                self.workers.stop()
            return miss
        finally:
            self.budget.answered(call.account_id)

    def _exchange(self, request: requests.PreparedRequest) -> requests.Response:
        response = self.session.send(
            request, timeout=TIMEOUT, allow_redirects=False, **self._settings
        )
        self._logger.debug("GET %s answered with %s", request.url, response.status_code)
        return response

    def _judge(self, response: requests.Response, call: Call) -> _Outcome:
        self._answered_at = self.workers.clock()
        self.budget.heed(call.account_id, response.headers)
        miss: _Miss | None = None
        if response.ok and response.status_code < 300:  # noqa: PLR2004 - not a redirect
            try:
                page_of(response)
            except MalformedAnswerError as malformed:
                said = f" (HTTP {response.status_code}; {malformed})"
                miss = _Miss(errors.MALFORMED, said)
        else:
            miss = _refused(response, call)
        if miss is not None and miss.meaning.scope is Scope.SYNC:
            # Whoever waits to send the next request with this token is not to send it.
            self.workers.stop()
        else:
            self._token_is_proven.set()
        return response if miss is None else miss

    @contextmanager
    def _alone_until_token_is_proven(self) -> Iterator[None]:
        """Lets a single request ask whether the token is good, not one for each worker."""
        if not self._token_is_proven.is_set():
            with self._first_contact:
                self.workers.go_on()
                if not self._token_is_proven.is_set():
                    yield
                    return
        # Whoever waited for that answer goes on beside the others.
        yield

    def _wait_for_budget(self, call: Call, began: float, last_miss: "_Miss | None") -> None:
        """Takes a call of the budget as soon as it gives one."""
        self.workers.go_on()
        while (wait := self.budget.take(call.account_id)) is not None:
            if self._is_too_long(wait.seconds, began):
                if last_miss is not None:
                    raise _failure(call, last_miss, f", and {wait.seconds:,.0f} s are to be waited")
                said = f" ({wait.seconds:,.0f} s for {wait.reason})"
                raise ReadError(errors.WAIT_TOO_LONG, call.doing, call.account_id, said)
            key = call.account_id if wait.for_account else None
            self._waits[key] = wait
            try:
                self.workers.wait(wait.seconds, for_account=wait.for_account)
            finally:
                self._waits.pop(key, None)

    def _hold(self, call: Call, miss: "_Miss", limits_met: int) -> None:
        """Holds back whomever a 429 concerns: the account, or all requests with the token."""
        announced = miss.wait
        wait = _backoff(_RATE_LIMIT_BACKOFF, limits_met) if announced is None else announced
        wait = max(wait, min(2.0 ** (limits_met - 1), _LONGEST_FLOOR))
        is_vendor = miss.origin is Origin.VENDOR
        for_account = call.account_id is not None and (
            is_vendor or self.budget.is_used_up(call.account_id)
        )
        self._tell_retry(call, miss, wait)
        who = "the vendor's limit" if is_vendor else "Truto's limit"
        self.budget.hold(call.account_id if for_account else None, wait, who)

    def _back_off(self, call: Call, miss: "_Miss", attempts: int, began: float) -> None:
        """Waits before the next attempt, or gives up."""
        wait = _backoff(_FIRST_BACKOFF, attempts) if miss.wait is None else miss.wait
        if attempts < self._patience.attempts and not self._is_too_long(wait, began):
            self._tell_retry(call, miss, wait)
            self.workers.wait(wait, for_account=True)
            return
        if miss.is_unreachable and self._answered_at <= began:
            # Nobody got through all the while: it is not this account's failure, and the others
            # are not to find out one by one.
            self.workers.stop()
            miss = replace(miss, meaning=replace(miss.meaning, scope=Scope.SYNC))
        raise _failure(call, miss, f", {attempts} times in a row" if attempts > 1 else "")

    def _is_too_long(self, wait: float, began: float) -> bool:
        over = self.workers.clock() + wait - began
        return wait > self._patience.longest_wait or over > self._patience.total_wait

    def _tell_retry(self, call: Call, miss: "_Miss", wait: float) -> None:
        self._logger.info(
            "%s: %s%s. Trying again in %.0f s.", call.doing, miss.meaning.what, miss.said, wait
        )


class TrutoClient(HttpClient):
    """The CDK's client with the retries of `Truto`.

    The CDK's own loop adds a second to every wait, tells each failure in its own words with a stack
    trace, and holds a worker while it waits.
    """

    def __init__(self, name: str, logger: logging.Logger, truto: Truto, doing: str) -> None:
        super().__init__(name=name, logger=logger, session=truto.session)
        self._truto = truto
        self._doing = doing

    def send_request(  # noqa: D102 - the CDK's
        self,
        http_method: str,
        url: str,
        request_kwargs: Mapping[str, Any],  # noqa: ARG002 - the timeout is this client's
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        *_: Any,
        **__: Any,
    ) -> tuple[requests.PreparedRequest, requests.Response]:
        params = params or {}
        request = self._create_prepared_request(http_method, url, headers=headers, params=params)
        account_id = params.get("integrated_account_id")
        call = Call(self._doing.format(account_id), account_id, CURSOR_PARAMETER in params)
        return request, self._truto.send(request, call)


def page_of(response: requests.Response) -> Page:
    """The page that an answer carries, parsed once however often it is asked for.

    Raises:
        MalformedAnswerError: If it carries none.
    """
    memory = vars(response)
    if _PAGE not in memory:
        memory[_PAGE] = parse_page(response.content)
    page: Page = memory[_PAGE]
    return page


@dataclass(frozen=True)
class _Miss:
    """A request that brought no page: why, what was said, and the seconds to wait if those were."""

    meaning: Meaning
    said: str
    wait: float | None = None
    origin: Origin = Origin.TRUTO
    is_unreachable: bool = False


def _refused(response: requests.Response, call: Call) -> _Miss:
    body = parse_error(response.content)
    status = response.status_code
    meaning = errors.meaning_of_answer(
        status, body, sent_cursor=call.sent_cursor, of_account=call.account_id is not None
    )
    return _Miss(meaning, errors.said(status, body), announced_wait(response.headers), body.origin)


def _broken_off(request: requests.PreparedRequest, failure: requests.RequestException) -> _Miss:
    host = urlsplit(str(request.url)).netloc
    said = f" ({host}: {errors.reason_of(failure)})"
    is_unreachable = errors.is_unreachable(failure)
    return _Miss(errors.meaning_of_exception(failure), said, is_unreachable=is_unreachable)


def _failure(call: Call, miss: _Miss, more: str = "") -> ReadError:
    return ReadError(miss.meaning, call.doing, call.account_id, f"{miss.said}{more}")


class _Session(requests.Session):
    """Looks at no redirect: requests reads its address even where it is not followed."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        del resp


def _session(config: Config) -> requests.Session:
    session = _Session()
    session.auth = TokenAuthenticator(config.token)
    session.headers["Accept"] = "application/json"
    # One connection for each worker, and one for the list of accounts that is read beside them.
    adapter = WholeAnswers(pool_connections=1, pool_maxsize=config.num_workers + 1)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _backoff(first: float, attempt: int) -> float:
    """Doubling from attempt to attempt, with a jitter that lets many workers not come at once."""
    longest: float = min(first * 2 ** (attempt - 1), _LONGEST_BACKOFF)
    return longest * random.uniform(0.75, 1.0)  # noqa: S311 - a jitter is no secret
