"""What each failure means: a table, and one message for each row.

Every message says what failed, for which account, what Truto or the vendor said, and who does what
now. The statuses and their meanings are those of Truto's API reference, "Errors".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from source_truto_segments.envelope import ErrorBody, Origin, quote


class Action(Enum):
    """What is done about a failed request."""

    FAIL = "fail"
    RETRY = "retry"
    RATE_LIMITED = "rate limited"


class Scope(Enum):
    """Whom a failure concerns: one account, or the whole sync."""

    ACCOUNT = "account"
    SYNC = "sync"


@dataclass(frozen=True)
class Meaning:
    """A row of the table.

    Attributes:
        action: Whether the request is sent again.
        failure_type: Airbyte's type: config_error asks the user to act, transient_error will pass
            by itself, system_error is a fault of Truto or of this connector.
        what: What went wrong, as the second half of "… failed: ".
        todo: Who does what now, as sentences.
        scope: Whom it concerns.
    """

    action: Action
    failure_type: FailureType
    what: str
    todo: str
    scope: Scope = Scope.ACCOUNT


class ReadError(AirbyteTracedException):
    """A failure in words.

    Attributes:
        meaning: The row of the table.
        account_id: The account that it happened with; None if with none.
        cause: The message without what is to be done.
    """

    def __init__(
        self, meaning: Meaning, doing: str, account_id: str | None = None, said: str = ""
    ) -> None:
        self.meaning = meaning
        self.account_id = account_id
        self.cause = filter_secrets(f"{doing} failed: {meaning.what}{said}")
        message = f"{self.cause}. {filter_secrets(meaning.todo)}"
        super().__init__(
            message=message, internal_message=message, failure_type=meaning.failure_type
        )


_CONFIG = FailureType.config_error
_TRANSIENT = FailureType.transient_error
_SYSTEM = FailureType.system_error

_SYNC_AGAIN = "Nothing is to be done now: the next sync reads it again."
_IF_IT_LASTS = f"{_SYNC_AGAIN} If it lasts for hours, contact Truto's support."
_RECONNECT = "The account's owner must reconnect it in Truto"
_CHECK_FILTERS = (
    "Check workspace_id, tag_id, page_size and remote_query in the source's configuration; if they "
    "are right, send this message to Truto's support."
)

_MEANINGS: Mapping[tuple[int, Origin], Meaning] = {
    (400, Origin.TRUTO): Meaning(
        Action.FAIL, _CONFIG, "Truto rejected the request", _CHECK_FILTERS
    ),
    (400, Origin.VENDOR): Meaning(
        Action.FAIL, _CONFIG, "the vendor rejected the request", _CHECK_FILTERS
    ),
    (401, Origin.TRUTO): Meaning(
        Action.FAIL,
        _CONFIG,
        "Truto refused the API token",
        "Create an API token in the Truto environment of this account and put it into the source's "
        "API token field.",
        Scope.SYNC,
    ),
    (401, Origin.VENDOR): Meaning(
        Action.FAIL,
        _CONFIG,
        "the vendor refused the credentials of the connection",
        f"{_RECONNECT}; until then no sync can read it.",
    ),
    (403, Origin.TRUTO): Meaning(
        Action.FAIL,
        _CONFIG,
        "Truto does not let the API token do this",
        "Use an API token of this Truto environment that may read its integrated accounts and its "
        "unified API.",
        Scope.SYNC,
    ),
    (403, Origin.VENDOR): Meaning(
        Action.FAIL,
        _CONFIG,
        "the vendor does not let the connection read this",
        f"{_RECONNECT} and grant the missing permission.",
    ),
    (404, Origin.TRUTO): Meaning(
        Action.FAIL,
        _CONFIG,
        "Truto does not know this account",
        "Check the integrated account ID, and that the API token belongs to the same Truto "
        "environment as the account.",
    ),
    (404, Origin.VENDOR): Meaning(
        Action.FAIL, _CONFIG, "the vendor does not know what was asked for", _CHECK_FILTERS
    ),
    (405, Origin.VENDOR): Meaning(
        Action.FAIL, _CONFIG, "the vendor does not allow this request", _CHECK_FILTERS
    ),
    (409, Origin.VENDOR): Meaning(
        Action.FAIL, _CONFIG, "the vendor reported a conflict", _CHECK_FILTERS
    ),
    (422, Origin.VENDOR): Meaning(
        Action.FAIL, _CONFIG, "the vendor could not process the request", _CHECK_FILTERS
    ),
    (429, Origin.TRUTO): Meaning(
        Action.RATE_LIMITED,
        _TRANSIENT,
        "Truto's rate limit was exceeded",
        f"{_SYNC_AGAIN} If it happens often, lower num_workers or leave more time between syncs, "
        "also of other connections with this API token.",
    ),
    (429, Origin.VENDOR): Meaning(
        Action.RATE_LIMITED,
        _TRANSIENT,
        "the vendor's rate limit was exceeded",
        f"{_SYNC_AGAIN} If it happens often, leave more time between syncs.",
    ),
    (500, Origin.TRUTO): Meaning(
        Action.RETRY, _TRANSIENT, "Truto had an internal error", _IF_IT_LASTS
    ),
    (500, Origin.VENDOR): Meaning(
        Action.RETRY, _TRANSIENT, "the vendor had an internal error", _IF_IT_LASTS
    ),
    (502, Origin.TRUTO): Meaning(
        Action.RETRY, _TRANSIENT, "Truto got no clean answer from the vendor", _IF_IT_LASTS
    ),
    (502, Origin.VENDOR): Meaning(
        Action.RETRY, _TRANSIENT, "the vendor gave Truto no clean answer", _IF_IT_LASTS
    ),
    (503, Origin.TRUTO): Meaning(
        Action.FAIL,
        _CONFIG,
        "Truto has blocked this account",
        "Contact Truto's support with the account's ID.",
    ),
    (503, Origin.VENDOR): Meaning(
        Action.RETRY, _TRANSIENT, "the vendor is unavailable", _IF_IT_LASTS
    ),
    (504, Origin.TRUTO): Meaning(
        Action.RETRY, _TRANSIENT, "the vendor did not answer Truto in time", _IF_IT_LASTS
    ),
    (504, Origin.VENDOR): Meaning(
        Action.RETRY, _TRANSIENT, "the vendor did not answer in time", _IF_IT_LASTS
    ),
}

WORKSPACE_REQUIRED = Meaning(
    Action.FAIL,
    _CONFIG,
    "the vendor insists on a workspace",
    "Check workspace_id in the source's configuration; left empty, all workspaces are read.",
)
NOT_SUPPORTED = Meaning(
    Action.FAIL,
    _CONFIG,
    "Truto has no such resource for this integration",
    "Take this account out of the source, or ask Truto's support for the resource.",
)
REFUSED_CURSOR = Meaning(
    Action.FAIL,
    _TRANSIENT,
    "the cursor of the next page was refused, as happens to a cursor that has grown old",
    "Nothing is to be done now: the next sync reads this account from its first page.",
)
REDIRECTED = Meaning(
    Action.FAIL,
    _CONFIG,
    "the address answered with a redirect, which is not followed lest the API token go elsewhere",
    "Check api_url in the source's configuration.",
    Scope.SYNC,
)
MALFORMED = Meaning(Action.RETRY, _TRANSIENT, "the answer could not be read", _IF_IT_LASTS)
TIMED_OUT = Meaning(Action.RETRY, _TRANSIENT, "no answer came in time", _IF_IT_LASTS)
NO_TLS = Meaning(
    Action.RETRY,
    _TRANSIENT,
    "no secure connection could be made",
    "Check that the network's proxies pass on this address, and that their certificates are "
    "trusted on the machine that runs the sync.",
)
NO_CONNECTION = Meaning(
    Action.RETRY,
    _TRANSIENT,
    "the connection could not be made or was broken off",
    "Check that the machine that runs the sync can reach this address; if it can, the next sync "
    "reads it again.",
)
UNUSABLE_ADDRESS = Meaning(
    Action.FAIL,
    _CONFIG,
    "the address cannot be used",
    "Check api_url in the source's configuration, and the proxy settings of the machine.",
    Scope.SYNC,
)
NO_LIST = Meaning(
    Action.FAIL,
    _CONFIG,
    "Truto has no list of integrated accounts at this address",
    "Check api_url in the source's configuration.",
    Scope.SYNC,
)
REFUSED_LIST = Meaning(
    Action.FAIL,
    _CONFIG,
    "Truto rejected the request for the list",
    "Check the integrations and tenant_ids under additional_accounts in the source's "
    "configuration; if they are right, send this message to Truto's support.",
    Scope.SYNC,
)
UNAVAILABLE_LIST = Meaning(Action.RETRY, _TRANSIENT, "Truto is unavailable", _IF_IT_LASTS)
LOOPING = Meaning(
    Action.FAIL,
    _SYSTEM,
    "its pages run in a circle",
    "All records up to there were read. Send this message to Truto's support.",
)
WAIT_TOO_LONG = Meaning(
    Action.FAIL,
    _TRANSIENT,
    "it would have to wait for longer than a sync should",
    "Nothing is to be done now: a later sync reads it. If it happens often, leave more time "
    "between syncs.",
)
_RECONNECT_FIRST = "Ask the account's owner to reconnect it; the next sync then reads it."
NOT_ACTIVE: Mapping[str, Meaning] = {
    "needs_reauth": Meaning(
        Action.FAIL,
        _CONFIG,
        "it needs to be reconnected by its owner",
        _RECONNECT_FIRST,
    ),
    "connecting": Meaning(
        Action.FAIL,
        _CONFIG,
        "its owner has not finished connecting it",
        "Ask the account's owner to finish, or delete the account in Truto if it was given up.",
    ),
    "validation_error": Meaning(
        Action.FAIL,
        _CONFIG,
        "Truto could not validate its connection",
        _RECONNECT_FIRST,
    ),
    "post_install_error": Meaning(
        Action.FAIL,
        _CONFIG,
        "a step after its connection failed in Truto",
        "See the account in Truto for the step that failed, and ask its owner to reconnect it.",
    ),
}


def meaning_of_status(status: str) -> Meaning:
    """The row for an integrated account that is not active."""
    return NOT_ACTIVE.get(status) or Meaning(
        Action.FAIL, _CONFIG, "it is not active", "See the account in Truto."
    )


# Of the list of accounts, some statuses mean another thing than of an account.
_OF_LIST: Mapping[int, Meaning] = {400: REFUSED_LIST, 404: NO_LIST, 503: UNAVAILABLE_LIST}


def meaning_of_answer(
    status: int, body: ErrorBody, *, sent_cursor: bool, of_account: bool = True
) -> Meaning:
    """The row for an answer that is not a 200.

    Args:
        status: The HTTP status.
        body: What the answer says.
        sent_cursor: Whether the request carried a cursor.
        of_account: Whether it was about an account, and not about the environment's list of them.
    """
    if not of_account and status in _OF_LIST:
        return _OF_LIST[status]
    if 300 <= status < 400:  # noqa: PLR2004 - the redirects
        return REDIRECTED
    if status == requests.codes.bad_request:
        if any("workspace" in name for name in body.missing_parameters):
            return WORKSPACE_REQUIRED
        if body.origin is Origin.TRUTO and "not support" in body.reason.lower():
            return NOT_SUPPORTED
        if sent_cursor:
            return REFUSED_CURSOR
    return _MEANINGS.get((status, body.origin)) or _unexpected(status, body.origin)


def meaning_of_exception(failure: requests.RequestException) -> Meaning:
    """The row for a request that got no whole answer."""
    for kind, meaning in _EXCEPTIONS:
        if isinstance(failure, kind):
            return meaning
    return NO_CONNECTION


# The order matters: a ConnectTimeout is both a Timeout and a ConnectionError.
_EXCEPTIONS: tuple[tuple[type[requests.RequestException], Meaning], ...] = (
    (requests.exceptions.SSLError, NO_TLS),
    (requests.Timeout, TIMED_OUT),
    (requests.exceptions.InvalidURL, UNUSABLE_ADDRESS),
    (requests.exceptions.InvalidSchema, UNUSABLE_ADDRESS),
    (requests.exceptions.MissingSchema, UNUSABLE_ADDRESS),
    (requests.exceptions.InvalidHeader, UNUSABLE_ADDRESS),
    (requests.exceptions.ContentDecodingError, MALFORMED),
)


def said(status: int, body: ErrorBody) -> str:
    """What the other side said, to stand behind the row's sentence."""
    parts = [f"HTTP {status}"]
    if body.reason:
        parts.append(f'{body.origin.value} said: "{body.reason}"')
    if body.missing_scopes:
        parts.append(f"missing scopes: {quote(', '.join(body.missing_scopes))}")
    return f" ({'; '.join(parts)})"


def reason_of(failure: Exception) -> str:
    """The innermost cause of a failed request in its own words."""
    *_, innermost = _causes(failure)
    return quote(str(innermost)) or type(innermost).__name__


def is_unreachable(failure: Exception) -> bool:
    """Whether no connection was made at all, so that no account can have been the cause."""
    return any(isinstance(cause, _NEVER_CONNECTED) for cause in _causes(failure))


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """A failure and what caused it, from the outside in."""
    for _ in range(_DEEPEST_CAUSE):
        yield failure
        inner = getattr(failure, "reason", None) or failure.__cause__ or failure.__context__
        if not isinstance(inner, BaseException):
            return
        failure = inner


# requests wraps urllib3 wraps the operating system's error; deeper chains run in a circle.
_DEEPEST_CAUSE = 8
_NEVER_CONNECTED = (NewConnectionError, ConnectTimeoutError)


def _unexpected(status: int, origin: Origin) -> Meaning:
    """Statuses that Truto's reference does not list are judged by their class."""
    who = origin.value
    if status >= requests.codes.server_error:
        return Meaning(
            Action.RETRY, _TRANSIENT, f"{who} had an error that is not documented", _IF_IT_LASTS
        )
    if status < 300:  # noqa: PLR2004 - a success without the documented body
        return MALFORMED
    return Meaning(
        Action.FAIL, _CONFIG, f"{who} refused the request for no documented cause", _CHECK_FILTERS
    )
