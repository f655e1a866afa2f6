"""The failures of a sync: which of them are fatal, when each is reported, and what is raised."""

import logging

from airbyte_cdk.models import FailureType
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_truto_segments.truto import errors
from source_truto_segments.truto.errors import ReadError, Scope

logger = logging.getLogger("airbyte")

# If several accounts fail, the sync reports the most urgent type: one that needs a person first.
_PRECEDENCE = (
    FailureType.config_error,
    FailureType.system_error,
    FailureType.transient_error,
)


class Failures:
    """Collects failures and reports each once: what is raised at the end is not emitted as well.

    Args:
        skip_accounts: Whether an account that cannot be read is a warning, not a failure.
    """

    def __init__(self, *, skip_accounts: bool) -> None:
        self._skip_accounts = skip_accounts
        self._by_message: dict[str, ReadError] = {}
        # The last failure waits for the next one, or for the end.
        self._unreported: ReadError | None = None

    def __bool__(self) -> bool:
        return bool(self._by_message)

    @property
    def any_of_sync(self) -> bool:
        """Whether a failure concerns the whole sync."""
        return any(map(_is_of_sync, self._by_message.values()))

    def is_fatal(self, error: ReadError) -> bool:
        """Return whether an error fails the sync even if failed accounts are skipped."""
        is_defect = error.resolution is errors.UNEXPECTED
        return not self._skip_accounts or _is_of_sync(error) or is_defect

    def add(self, error: ReadError) -> ReadError | None:
        """Take in a failure; log it if it is only a warning.

        Returns:
            An earlier failure that is to be emitted now.
        """
        is_new = str(error) not in self._by_message
        self._by_message[str(error)] = error
        if not self.is_fatal(error):
            if is_new:
                logger.warning("%s", error)
            return None
        if not is_new:
            return None
        earlier, self._unreported = self._unreported, error
        if earlier is not None and _is_of_sync(earlier):
            earlier, self._unreported = error, earlier
        # A refused token fails whatever is in flight: once is enough.
        if earlier is not None and earlier.resolution.scope is Scope.ACCOUNT:
            return earlier
        return None

    def take_unreported(self) -> ReadError | None:
        """Return the failure that was not reported yet, once."""
        error, self._unreported = self._unreported, None
        return error

    def is_only_failure(self, error: ReadError) -> bool:
        """Return whether a failure says all that is to be said: it is the only fatal one."""
        return _is_of_sync(error) or sum(map(self.is_fatal, self._by_message.values())) == 1

    def summary(self, text: str) -> AirbyteTracedException:
        """Return the exception of a sync whose failures were reported one by one."""
        types = {error.failure_type for error in self._by_message.values()}
        return traced(
            f"{text} For each of these accounts, an earlier message says who must do what.",
            next(known for known in _PRECEDENCE if known in types),
        )


def traced(message: str, failure_type: FailureType) -> AirbyteTracedException:
    """Return an exception whose message is a sentence for the user."""
    return AirbyteTracedException(
        message=message, internal_message=message, failure_type=failure_type
    )


def _is_of_sync(error: ReadError) -> bool:
    return error.resolution.scope is Scope.SYNC or error.account_id is None
