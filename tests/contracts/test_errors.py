"""The tree of errors: stable codes, and what a consumer does follows from two middle nodes."""

import pytest

from headrace.contracts import errors
from headrace.contracts.errors import (
    AttemptError,
    ExpressionError,
    HeadraceError,
    RetryableError,
    TerminalError,
    UnavailableError,
    UnknownOutcomeError,
)
from headrace.contracts.failure import Failure


def every() -> list[type[HeadraceError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HeadraceError)]


def test_an_error_is_retryable_or_terminal_or_unknown_and_never_two() -> None:
    """Except an attempt's own error, where retrying is data."""
    for kind in every():
        middle = [node for node in (RetryableError, TerminalError, UnknownOutcomeError) if issubclass(kind, node)]
        assert len(middle) == (0 if kind in (HeadraceError, AttemptError) else 1), kind
        assert kind.retryable is issubclass(kind, RetryableError)


def test_codes_are_stable_words_each_of_one_error() -> None:
    """`code` is what people and policies name."""
    leaves = [kind for kind in every() if "code" in vars(kind)]
    codes = [kind.code for kind in leaves]
    assert len(codes) == len(set(codes))
    assert all(code == code.lower() and code.replace("_", "").isalpha() for code in codes)


def test_causes_are_listed_outermost_first_and_bounded() -> None:
    """A chain of any length gives at most eight, each as text."""
    cause: Exception = ValueError("innermost")
    for number in range(20):
        outer = KeyError(number)
        outer.__cause__ = cause
        cause = outer
    error = UnavailableError("x" * 5000)
    error.__cause__ = cause
    failure = error.failure()
    assert failure.code == "unavailable" and failure.retryable
    assert len(failure.message) == 2000 and len(failure.causes) == 8
    assert failure.causes[0] == "KeyError: 19"


@pytest.mark.parametrize("retryable", [True, False])
def test_an_attempts_error_says_itself_whether_to_retry(retryable: bool) -> None:
    """Decided where it is raised."""
    error = AttemptError("rate_limited", "429", retryable=retryable, retry_after_ms=7)
    assert error.failure() == Failure(code="rate_limited", message="429", retryable=retryable, retry_after_ms=7)


def test_an_expressions_error_has_its_own_code() -> None:
    """`type_mismatch` is not `expr_eval`."""
    assert ExpressionError("x", code="type_mismatch").failure().code == "type_mismatch"
    assert ExpressionError("x").failure().code == "expr_eval"
