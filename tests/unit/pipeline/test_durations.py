"""Durations and instants as people, and CEL, write them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import names
from headrace.contracts.errors import ExpressionError
from headrace.pipeline.durations import DurationError, instant_ms, parse_duration_ms
from headrace.pipeline.evaluation import compile_expression, evaluate


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("1ms", 1),
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("30d", names.DURATION_MS_MAX),
        ("1.5s", 1500),
    ],
)
def test_durations(text: str, expected_ms: int) -> None:
    """Numbers with units, added up."""
    assert parse_duration_ms(text) == expected_ms


@pytest.mark.parametrize(
    "value", ["", "0s", "-1s", "31d", "1d400y", "5 minuts", "10", 10, None, True, [], "1.5m", "1h 30m", "٣s"]
)
def test_input_28_what_is_no_duration_is_an_error(value: Any) -> None:
    """With what to write; in an expression it is an error of the step."""
    with pytest.raises(DurationError, match="1ms to 30d") as caught:
        parse_duration_ms(value)
    assert isinstance(caught.value, ExpressionError)


@pytest.mark.parametrize("value", ["inf", "Infinity", "never", "forever", "unlimited", float("inf")])
def test_input_28_infinite_is_named_as_not_available(value: Any) -> None:
    """Nothing waits for ever."""
    with pytest.raises(DurationError, match="infinite is not available"):
        parse_duration_ms(value)


@given(st.integers(1, names.DURATION_MS_MAX))
def test_a_cel_duration_comes_back_as_it_went(total_ms: int) -> None:
    """What an expression gives is what `wait` takes."""
    text = evaluate(compile_expression("duration(inputs.d)"), {"inputs": {"d": f"{total_ms}ms"}})
    assert parse_duration_ms(text) == total_ms


def test_instants_have_a_time_zone() -> None:
    """Milliseconds since 1970, exact."""
    assert instant_ms("1970-01-01T00:00:01.250Z") == 1250
    assert instant_ms("2026-01-31T06:00:00+02:00") == instant_ms("2026-01-31T04:00:00Z") == 1769832000000
    for value in ("2026-01-31", "2026-01-31T06:00:00", "tomorrow", "2026-02-30T00:00:00Z", 5, None):
        with pytest.raises(DurationError, match="2026-01-31T06:00:00Z"):
            instant_ms(value)
