"""The failures of a sync or a check: one message per cause, however many accounts it affects."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from airbyte_cdk.models import FailureType
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_truto_segments.truto import errors
from source_truto_segments.truto.errors import ReadError, Resolution, Scope, UserError
from source_truto_segments.truto.excerpts import excerpt

logger = logging.getLogger("airbyte")

# People read only the first messages, and the platform limits their size.
MAX_MESSAGES = 20
MAX_MESSAGE_LENGTH = 8_000
# How many accounts and how many different reports a message lists.
_SHOWN = 3

_SEVERAL = "Reading integrated accounts"

# If several accounts fail, the sync reports the most urgent type: one that needs a person first.
_PRECEDENCE = (
    FailureType.config_error,
    FailureType.system_error,
    FailureType.transient_error,
)


@dataclass
class Cause:
    """A failure that one or more accounts share.

    Attributes:
        by_account: The first failure of each account, in order of arrival; an account counts once,
            however many of its streams fail.
        operations: What failed, without the accounts.
        integrations: How many of the accounts belong to each integration that is known.
    """

    by_account: dict[str | None, ReadError] = field(default_factory=dict)
    operations: set[str] = field(default_factory=set)
    integrations: Counter[str] = field(default_factory=Counter)

    @property
    def errors(self) -> list[ReadError]:
        """The failure of each account."""
        return [*self.by_account.values()]

    @property
    def resolution(self) -> Resolution:
        """The row of the error table."""
        return next(iter(self.by_account.values())).resolution

    def message(self) -> str:
        """Return what failed, for how many accounts, what was reported, and what to do."""
        first = self.errors[0]
        if len(self.errors) == 1:
            return cut(str(first))
        what = self.operations.copy().pop() if len(self.operations) == 1 else _SEVERAL
        guidance = {error.guidance for error in self.errors}
        advice = first.guidance if len(guidance) == 1 else self.resolution.guidance
        accounts = f"{len(self.errors):,} integrated accounts"
        named = ", ".join(f"{name}: {n:,}" for name, n in self.integrations.most_common())
        reported = dict.fromkeys(error.detail.strip() for error in self.errors)
        details = "; ".join([*filter(None, reported)][:_SHOWN])
        text = (
            f"{what} failed: {self.resolution.error_message}. Affected: {accounts}"
            f"{f' ({named})' if named else ''}, such as {shown([_id(e) for e in self.errors])}."
        )
        reports = f" Reported: {details}." if details else ""
        return cut(f"{text}{reports} {advice}")


class Failures:
    """Collects the failures of a sync, and logs each account's failure as it arrives.

    Args:
        skip_accounts: Whether an account that cannot be read is a warning, not a failure.
    """

    def __init__(self, *, skip_accounts: bool) -> None:
        self._skip_accounts = skip_accounts
        self._causes: dict[str, Cause] = {}
        self._of_sync: ReadError | None = None
        self._types: set[FailureType | None] = set()

    def __bool__(self) -> bool:
        return self.any_of_sync or bool(self._causes)

    @property
    def any_of_sync(self) -> bool:
        """Whether a failure concerns the whole sync."""
        return self._of_sync is not None

    def is_fatal(self, error: ReadError) -> bool:
        """Return whether an error fails the sync even if failed accounts are skipped."""
        is_defect = error.resolution is errors.UNEXPECTED
        return not self._skip_accounts or is_of_sync(error) or is_defect

    def add(self, error: ReadError, integration: str | None = None) -> None:
        """Add a failure; warn once for each account."""
        self._types.add(error.failure_type)
        if is_of_sync(error):
            # A rejected token fails every request in flight: keep the first failure.
            self._of_sync = self._of_sync or error
            return
        cause = self._causes.setdefault(error.resolution.error_message, Cause())
        cause.operations.add(_generic(error))
        first = cause.by_account.get(error.account_id)
        if first is not None:
            if error.detail != first.detail:
                logger.info(cut(str(error)))
            return
        logger.warning(cut(str(error)))
        cause.by_account[error.account_id] = error
        cause.integrations.update([integration] if integration else [])

    def causes(self) -> list[Cause]:
        """Return the causes of the accounts' failures, those of most accounts first."""
        return sorted(self._causes.values(), key=lambda cause: -len(cause.errors))

    def messages(self) -> list[str]:
        """Return a message for each cause, MAX_MESSAGES - 1 at most."""
        causes = self.causes()
        texts = [cause.message() for cause in causes[: MAX_MESSAGES - 2]]
        further = causes[len(texts) :]
        if len(further) == 1:
            texts.append(further[0].message())
        elif further:
            accounts = sum(len(cause.errors) for cause in further)
            texts.append(
                f"{accounts:,} more failures have {len(further):,} other causes; see the log."
            )
        return texts

    def grouped(self) -> list[str]:
        """Return a message for each cause that several accounts share; the log has the others."""
        return [cause.message() for cause in self.causes()[:MAX_MESSAGES] if len(cause.errors) > 1]

    def final_error(self) -> AirbyteTracedException | None:
        """Return the only failure that has to be raised; None if there are several."""
        if self._of_sync is not None:
            return self._of_sync
        fatal = [error for cause in self.causes() for error in cause.errors if self.is_fatal(error)]
        return fatal[0] if len(fatal) == 1 else None

    def traced(self, only: AirbyteTracedException | None) -> Iterator[AirbyteTracedException]:
        """Yield an exception for each cause that fails the sync, except the one to be raised."""
        if self._of_sync is not None and self._of_sync is not only:
            yield self._of_sync
        for cause, text in zip(self.causes(), self.messages(), strict=False):
            first = cause.errors[0]
            if first is not only and any(map(self.is_fatal, cause.errors)):
                yield UserError(text, first.failure_type or FailureType.system_error)

    def summary(self, text: str) -> AirbyteTracedException:
        """Return the exception to raise after the failures were reported one by one."""
        return UserError(
            cut(f"{text} For each cause, an earlier message says who must do what."),
            next(known for known in _PRECEDENCE if known in self._types),
        )


def is_of_sync(error: ReadError) -> bool:
    """Return whether a failure concerns the whole sync instead of a single account."""
    return error.resolution.scope is Scope.SYNC or error.account_id is None


def shown(names: Sequence[str], count: int | None = None) -> str:
    """List the first names, and how many more there are.

    Args:
        names: The names.
        count: How many there are in all; if given, all `names` are listed.
    """
    listed = names[:_SHOWN] if count is None else names
    more = (len(names) if count is None else count) - len(listed)
    return f"{', '.join(map(excerpt, listed))}{f' and {more:,} more' if more else ''}"


def cut(text: str) -> str:
    """Return a message cut to MAX_MESSAGE_LENGTH."""
    return text if len(text) <= MAX_MESSAGE_LENGTH else f"{text[: MAX_MESSAGE_LENGTH - 1]}…"


def _id(error: ReadError) -> str:
    return str(error.account_id)


def _generic(error: ReadError) -> str:
    """Return what failed, without the account."""
    account = f" integrated account {excerpt(error.account_id)}"
    return error.operation.replace(account, " integrated accounts")
