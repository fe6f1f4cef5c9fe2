"""How a model call fails: one code a cause, and what each means for retries and for the breaker.

Whether another attempt follows is the scheduler's to decide; an adapter never retries. A call that is cancelled is no
failure: `CancelledError` goes through.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from headrace.contracts.errors import AttemptError
from headrace.contracts.events import Usage
from headrace.contracts.failure import Failure
from headrace_step_executor.providers.messages import Quota

PARTIAL_CHARS_MAX: Final = 400
"""Of an answer that was cut off, kept as a diagnosis; a failure's causes hold 500 characters each."""


class ErrorClass(NamedTuple):
    """What an error code means."""

    retryable: bool
    counts_for_breaker: bool
    """It says something about the provider's health."""


ERRORS: Final[Mapping[str, ErrorClass]] = {
    "connect": ErrorClass(True, True),
    "timeout": ErrorClass(True, True),
    "overloaded": ErrorClass(True, True),
    "unavailable": ErrorClass(True, True),
    "malformed": ErrorClass(True, True),
    "rate_limited": ErrorClass(True, False),  # the limiter's business: nothing is broken
    "auth": ErrorClass(False, False),
    "invalid_request": ErrorClass(False, False),
    "context_too_long": ErrorClass(False, False),
    "refused": ErrorClass(False, False),
    "cancelled": ErrorClass(False, False),
    "provider_missing": ErrorClass(False, False),
}
RETRYABLE_CODES: Final = frozenset(code for code, kind in ERRORS.items() if kind.retryable)
TERMINAL_CODES: Final = frozenset(ERRORS) - RETRYABLE_CODES


class ProviderError(AttemptError):
    """A model call failed. `code` is one of ERRORS.

    Args:
        usage: What it cost all the same, as far as the provider said.
        quota: What its headers said.
        partial: The beginning of an answer that never ended.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool,
        retry_after_ms: int = 0,
        usage: Usage | None = None,
        quota: Quota | None = None,
        partial: str = "",
    ) -> None:
        super().__init__(code, message, retryable=retryable, retry_after_ms=retry_after_ms)
        self.usage, self.quota, self.partial = usage, quota, partial

    @property
    def counts_for_breaker(self) -> bool:
        """It says something about the provider's health."""
        return ERRORS[self.attempt_code].counts_for_breaker

    def failure(self) -> Failure:
        """As data for the report; what came of the answer is the first cause."""
        plain = super().failure()
        if not self.partial:
            return plain
        heard = f"the answer began: {self.partial[:PARTIAL_CHARS_MAX]}"
        return Failure(
            code=plain.code,
            message=plain.message,
            retryable=plain.retryable,
            retry_after_ms=plain.retry_after_ms,
            causes=(heard, *plain.causes)[:8],
        )


def provider_error(
    code: str,
    message: str,
    *,
    retry_after_ms: int = 0,
    retryable: bool | None = None,
    usage: Usage | None = None,
    quota: Quota | None = None,
) -> ProviderError:
    """The error of a code, retryable as ERRORS has it unless said otherwise."""
    assert code in ERRORS, code
    again = ERRORS[code].retryable if retryable is None else retryable
    return ProviderError(code, message, retryable=again, retry_after_ms=retry_after_ms, usage=usage, quota=quota)
