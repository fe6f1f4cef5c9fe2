"""What an attempt spends: bounded before each call, counted after it."""

import httpx2 as httpx
import pytest

from headrace.contracts.errors import AttemptError
from headrace.contracts.events import Usage
from headrace.contracts.money import Amount, UnitPrices
from headrace.pipeline.prices import ModelPrice, PriceTable
from headrace_step_executor.metering import Meter, bytes_of
from headrace_step_executor.providers.protocol import ChatMessage, GenerateRequest, provider_error

UNIT = UnitPrices(input=1_000, output=10_000, cached=1_000, reasoning=10_000)
TABLE = PriceTable("t 1", {"a/m": ModelPrice(unit=UNIT)})
REQUEST = GenerateRequest(model="m", messages=(ChatMessage(role="user", content="hello"),), max_tokens=100)
MOST = Amount(usd_nanos=bytes_of(REQUEST) + 1_000, tokens=bytes_of(REQUEST) + 100)


def test_usage_becomes_cost_with_its_prices_and_the_tables_version() -> None:
    """What the report says."""
    meter = Meter(TABLE, {}, None)
    assert meter.cost is None
    assert meter.admit("a/m", REQUEST) is REQUEST
    meter.paid(Usage(input_tokens=5, output_tokens=7))
    cost = meter.cost
    assert cost is not None and cost.amount == Amount(usd_nanos=75, tokens=12)
    assert (cost.table, cost.prices, cost.estimated) == ("t 1", {"a/m": UNIT}, False)


def test_a_reservation_bounds_every_call_and_the_sum_of_them() -> None:
    """The next call is refused before it is made when it could cost more than is left."""
    meter = Meter(TABLE, {}, MOST)
    meter.admit("a/m", REQUEST)
    meter.paid(Usage(input_tokens=1, output_tokens=1))
    with pytest.raises(AttemptError, match="are left of the attempt's reservation") as caught:
        meter.admit("a/m", REQUEST)
    assert (caught.value.attempt_code, caught.value.attempt_retryable) == ("budget_exceeded", False)


def test_under_a_reservation_a_call_always_says_how_long_its_answer_may_be() -> None:
    """Else nothing would bound what it costs."""
    asked = GenerateRequest(model="m", messages=REQUEST.messages)
    enough = Amount(usd_nanos=10**9, tokens=10**6)
    assert Meter(TABLE, {}, enough).admit("a/m", asked).max_tokens == 4_096
    assert Meter(TABLE, {}, None).admit("a/m", asked).max_tokens is None


@pytest.mark.parametrize("code", ["timeout", "malformed", "connect", "refused"])
def test_a_call_whose_end_nobody_told_is_counted_at_its_most(code: str) -> None:
    """It may have been billed."""
    meter = Meter(TABLE, {}, MOST)
    meter.admit("a/m", REQUEST)
    meter.failed(provider_error(code, "x"))
    cost = meter.cost
    assert cost is not None and (cost.amount, cost.estimated) == (MOST, True)


def test_a_call_that_is_cut_off_is_counted_at_its_most() -> None:
    """A deadline, a cancelled run: the report is made while the call has no end."""
    meter = Meter(TABLE, {}, MOST)
    meter.admit("a/m", REQUEST)
    assert meter.cost is not None and (meter.cost.amount, meter.cost.estimated) == (MOST, True)


@pytest.mark.parametrize("code", ["rate_limited", "overloaded", "unavailable", "auth", "invalid_request"])
def test_a_call_that_the_provider_refused_costs_nothing(code: str) -> None:
    """It says that it did nothing."""
    meter = Meter(TABLE, {}, MOST)
    meter.admit("a/m", REQUEST)
    meter.failed(provider_error(code, "x"))
    assert meter.cost is None


def test_a_call_that_never_reached_anybody_costs_nothing() -> None:
    """A server that is down must not use up a budget."""
    meter = Meter(TABLE, {}, MOST)
    meter.admit("a/m", REQUEST)
    error = provider_error("connect", "x")
    error.__cause__ = httpx.ConnectError("refused")
    meter.failed(error)
    assert meter.cost is None


def test_a_model_without_a_price_is_called_only_where_that_is_allowed() -> None:
    """Then its tokens are known, and its money is not."""
    with pytest.raises(AttemptError, match="no price is known"):
        Meter(TABLE, {}, None).admit("b/x", REQUEST)
    meter = Meter(TABLE, {"allow_unpriced": True}, None)
    meter.admit("b/x", REQUEST)
    meter.paid(Usage(input_tokens=5, output_tokens=7))
    assert meter.cost is not None and (meter.cost.amount, meter.cost.prices) == (Amount(tokens=12), {})
