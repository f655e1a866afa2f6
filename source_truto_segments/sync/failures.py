"""The failures of a sync or a check: one message for each cause, however many accounts it fails."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from airbyte_cdk.models import FailureType
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_truto_segments.truto import errors
from source_truto_segments.truto.errors import ReadError, Resolution, Scope
from source_truto_segments.truto.excerpts import excerpt

logger = logging.getLogger("airbyte")

# A person reads the first lines, and messages of megabytes break the platform's own limits.
MAX_MESSAGES = 20
MAX_MESSAGE_LENGTH = 8_000
# How many accounts, and how many different reports, a message shows.
_SHOWN = 3

# If several accounts fail, the sync reports the most urgent type: one that needs a person first.
_PRECEDENCE = (
    FailureType.config_error,
    FailureType.system_error,
    FailureType.transient_error,
)


@dataclass
class Cause:
    """What fails one or more accounts in the same way.

    Attributes:
        errors: The failure of each account, in the order in which they came.
        integrations: How many of the accounts belong to each integration that is known.
    """

    errors: list[ReadError] = field(default_factory=list)
    integrations: Counter[str] = field(default_factory=Counter)

    @property
    def resolution(self) -> Resolution:
        """The row of the error table."""
        return self.errors[0].resolution

    def message(self) -> str:
        """Write what failed, for how many accounts, what was reported, and who does what."""
        first = self.errors[0]
        if len(self.errors) == 1:
            return cut(str(first))
        accounts = f"{len(self.errors):,} integrated accounts"
        named = ", ".join(f"{name}: {n:,}" for name, n in self.integrations.most_common())
        reported = dict.fromkeys(error.detail.strip() for error in self.errors)
        details = "; ".join([*filter(None, reported)][:_SHOWN])
        text = (
            f"{_generic(first)} failed: {self.resolution.error_message}. Affected: {accounts}"
            f"{f' ({named})' if named else ''}, such as {shown([_id(e) for e in self.errors])}."
        )
        reports = f" Reported: {details}." if details else ""
        return cut(f"{text}{reports} {self.resolution.guidance}")


class Failures:
    """Collects the failures of a sync; each account's is logged as it comes.

    Args:
        skip_accounts: Whether an account that cannot be read is a warning, not a failure.
    """

    def __init__(self, *, skip_accounts: bool) -> None:
        self._skip_accounts = skip_accounts
        self._seen: set[tuple[str | None, str]] = set()
        self._causes: dict[tuple[str, str], Cause] = {}
        self._of_sync: ReadError | None = None
        self._types: set[FailureType | None] = set()

    def __bool__(self) -> bool:
        return bool(self._seen)

    @property
    def any_of_sync(self) -> bool:
        """Whether a failure concerns the whole sync."""
        return self._of_sync is not None

    def is_fatal(self, error: ReadError) -> bool:
        """Return whether an error fails the sync even if failed accounts are skipped."""
        is_defect = error.resolution is errors.UNEXPECTED
        return not self._skip_accounts or is_of_sync(error) or is_defect

    def add(self, error: ReadError, integration: str | None = None) -> None:
        """Take in a failure; log it."""
        if (error.account_id, str(error)) in self._seen:
            return
        self._seen.add((error.account_id, str(error)))
        self._types.add(error.failure_type)
        if is_of_sync(error):
            # A refused token fails whatever is in flight: once is enough.
            self._of_sync = self._of_sync or error
            return
        logger.warning("%s", cut(str(error)))
        cause = self._causes.setdefault((_generic(error), error.resolution.error_message), Cause())
        cause.errors.append(error)
        cause.integrations.update([integration] if integration else [])

    def causes(self) -> list[Cause]:
        """Return the causes of the accounts' failures; those of most accounts first."""
        return sorted(self._causes.values(), key=lambda cause: -len(cause.errors))

    def messages(self) -> list[str]:
        """Write a message for each cause, at most MAX_MESSAGES - 1."""
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
        """Write a message for each cause of several failures; the others are in the log."""
        return [cause.message() for cause in self.causes()[:MAX_MESSAGES] if len(cause.errors) > 1]

    def final_error(self) -> AirbyteTracedException | None:
        """Return the failure that says all that is to be said; None if there are several."""
        if self._of_sync is not None:
            return self._of_sync
        fatal = [error for cause in self.causes() for error in cause.errors if self.is_fatal(error)]
        return fatal[0] if len(fatal) == 1 else None

    def traced(self, only: AirbyteTracedException | None) -> Iterator[AirbyteTracedException]:
        """Yield an exception for each cause that fails the sync, but for the one that is raised."""
        if self._of_sync is not None and self._of_sync is not only:
            yield self._of_sync
        for cause, text in zip(self.causes(), self.messages(), strict=False):
            first = cause.errors[0]
            if first is not only and any(map(self.is_fatal, cause.errors)):
                yield traced(text, first.failure_type or FailureType.system_error)

    def summary(self, text: str) -> AirbyteTracedException:
        """Return the exception of a sync whose failures were reported one by one."""
        return traced(
            cut(f"{text} For each cause, an earlier message says who must do what."),
            next(known for known in _PRECEDENCE if known in self._types),
        )


def traced(message: str, failure_type: FailureType) -> AirbyteTracedException:
    """Return an exception whose message is a sentence for the user."""
    return AirbyteTracedException(
        message=message, internal_message=message, failure_type=failure_type
    )


def is_of_sync(error: ReadError) -> bool:
    """Return whether a failure concerns no single account."""
    return error.resolution.scope is Scope.SYNC or error.account_id is None


def shown(ids: Sequence[str]) -> str:
    """List the first of some IDs, and how many more there are."""
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return f"{', '.join(map(excerpt, ids[:_SHOWN]))}{more}"


def cut(text: str) -> str:
    """Bound a message."""
    return text if len(text) <= MAX_MESSAGE_LENGTH else f"{text[: MAX_MESSAGE_LENGTH - 1]}…"


def _id(error: ReadError) -> str:
    return str(error.account_id)


def _generic(error: ReadError) -> str:
    """Return what failed, without the account."""
    account = f" integrated account {excerpt(error.account_id)}"
    return error.operation.replace(account, " integrated accounts")
