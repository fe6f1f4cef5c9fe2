"""What models cost: looked up, counted in whole numbers, replaced by an operator."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import ConfigError
from headrace.contracts.events import Usage
from headrace.contracts.money import Amount, UnitPrices, usd_text
from headrace.pipeline.price_files import read_own, table_of
from headrace.pipeline.prices import FREE, ModelPrice, Tier, cost_of, shipped

DEAR = UnitPrices(input=3_000_000, output=15_000_000, cached=300_000, reasoning=15_000_000)
COUNTS = st.integers(0, 10**9)


def test_the_shipped_table_has_a_version_and_the_vendors_with_an_adapter() -> None:
    """Its version goes into every report, so that a cost can be told from the prices of another day."""
    table = shipped()
    assert table.version.startswith("genai-prices ")
    for model in ("openai/gpt-5-mini", "anthropic/claude-sonnet-4-5", "google/gemini-2.5-flash"):
        found = table.find(model)
        assert found is not None and found.unit.output > found.unit.input > 0 and found.context >= 200_000, model


def test_offline_providers_cost_nothing_and_say_so() -> None:
    """A price of 0 is a price; nothing is free because it is unknown."""
    assert [shipped().find(f"{name}/whatever.yaml") for name in ("echo", "script")] == [ModelPrice(unit=FREE)] * 2
    assert shipped().find("openai/not-yet-announced") is None
    assert shipped().find("vendor/gpt-5-mini") is None


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("openai/gpt-5-mini-2025-08-07", "openai/gpt-5-mini"),
        ("openai/GPT-5-mini", "openai/gpt-5-mini"),
        ("anthropic/claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5"),
        ("anthropic/claude-opus-4-1", "anthropic/claude-opus-4-1-20250805"),
    ],
)
def test_a_dated_name_has_the_price_of_its_model(asked: str, meant: str) -> None:
    """Vendors name fixed states by their date."""
    assert shipped().find(asked) == shipped().find(meant) != None  # noqa: E711 - one line says all three


def test_a_beginning_ends_where_a_word_does() -> None:
    """`claude-sonnet-4-5` is no beginning of `claude-sonnet-4-55`, which nobody knows."""
    assert shipped().find("anthropic/claude-sonnet-4-55") is None


def test_a_cost_is_rounded_up_once() -> None:
    """Cached input and reasoning are parts of input and output, at prices of their own."""
    usage = Usage(input_tokens=1_000, cached_tokens=400, output_tokens=10, reasoning_tokens=4)
    unit = UnitPrices(input=250_000, output=2_000_000, cached=25_001, reasoning=3_000_000)
    picos = 600 * 250_000 + 400 * 25_001 + 6 * 2_000_000 + 4 * 3_000_000
    assert cost_of(unit, usage) == Amount(usd_nanos=-(-picos // 1000), tokens=1_010)
    assert usd_text(cost_of(unit, usage).usd_nanos) == "$0.000184001"
    assert [usd_text(nanos) for nanos in (0, 1, 12_500_000_000, -5)] == [
        "$0.00", "$0.000000001", "$12.50", "-$0.000000005",
    ]  # fmt: skip


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 300_000))
def test_no_call_costs_more_than_the_most_that_was_said(
    given_tokens: int, said: int, cached: int, thought: int, over: int
) -> None:
    """What is reserved covers every usage within the bound, whatever tier it falls into."""
    price = ModelPrice(unit=FREE, tiers=(Tier(above=200_000, unit=DEAR),))
    usage = Usage(input_tokens=given_tokens, output_tokens=said, cached_tokens=cached, reasoning_tokens=thought)
    most = price.most(given_tokens + over, said)
    cost = cost_of(price.at(given_tokens), usage)
    assert cost.usd_nanos <= most.usd_nanos and cost.tokens <= most.tokens


def test_an_operators_file_comes_first(tmp_path: Path) -> None:
    """By model, or for a provider as a whole; the version says that it was there."""
    file = tmp_path / "prices.yaml"
    file.write_text(
        "version: contract-7\nmodels:\n  openai/gpt-5-mini: {input: 0.2, output: 1.6, cached: 0.02}\n"
        "  anthropic/*: {input: 0, output: 0, context: 8192}\n"
    )
    table = table_of(file)
    assert table.version == f"{shipped().version} + contract-7"
    mini, sonnet = table.find("openai/gpt-5-mini"), table.find("anthropic/claude-sonnet-4-55")
    assert mini is not None and mini.unit == UnitPrices(
        input=200_000, output=1_600_000, cached=20_000, reasoning=1_600_000
    )
    assert sonnet == ModelPrice(unit=FREE, context=8192)
    assert table.find("openai/gpt-5") == shipped().find("openai/gpt-5")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "a price table is a map with `models`"),
        ("models: {gpt: {input: 1, output: 1}}", "a model is named provider/model"),
        ("models: {a/b: {input: 1}}", "prices are `input`, `output`"),
        ("models: {a/b: {input: -1, output: 1}}", "`input` is -1"),
        ("models: {a/b: {input: free, output: 1}}", "`input` is free"),
        ("models: {a/b: {input: 0.0000001, output: 1}}", "at most six decimals"),
        ("models: {a/b: {input: 1, output: 1, context: -1}}", "`context` is a whole number"),
        ("modles: {}\nmodels: {}", "unknown key `modles`"),
    ],
)
def test_an_operators_file_that_does_not_fit_is_refused(text: str, told: str) -> None:
    """With the entry: a price that silently does not count would be a budget that does not hold."""
    with pytest.raises(ConfigError) as caught:
        read_own(text.encode(), "prices.yaml")
    assert told in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        table_of(tmp_path / "none.yaml")
