"""The library behind its module: what is declared, and results as JSON."""

import pytest

from headrace.contracts.errors import ExpressionError
from headrace.pipeline.cel_library import COMPILED_ROOTS, FUNCTION_NAMES, ROOTS, environment, plain


def test_every_function_can_be_called_and_is_suggested() -> None:
    """What `did you mean` offers exists."""
    for name in FUNCTION_NAMES:
        with pytest.raises(RuntimeError) as caught:
            environment().compile(f"{name}(1, 2, 3, 4, 5, 6, 7, 8, 9)")
        assert "found no matching overload" in str(caught.value) or "undeclared" in str(caught.value), name
    assert not any(name.startswith("_") for name in FUNCTION_NAMES)


def test_every_variable_is_declared() -> None:
    """And no other is."""
    for root in COMPILED_ROOTS:
        environment().compile(f"dyn({root}) == 1")
    assert set(ROOTS) < COMPILED_ROOTS
    for other in ("global", "item_11", "carry_0"):
        with pytest.raises(RuntimeError):
            environment().compile(other)


@pytest.mark.parametrize("source", ["b'x'", "{1: 2}", "[type(1)]", "18446744073709551615u", "[optional.none()]"])
def test_results_without_a_json_form_are_errors(source: str) -> None:
    """Bytes, other keys than text, types, integers beyond 64 bits, optional values."""
    value = environment().compile(source).eval(data={})
    with pytest.raises((ExpressionError, SystemError)):
        plain(value)
