"""Which prices a pipeline needs, and what an attempt can cost at most."""

import pytest

from headrace.contracts import names
from headrace.contracts.money import Amount, UnitPrices
from headrace.pipeline.bundle import load_text
from headrace.pipeline.prices import ModelPrice, PriceTable
from headrace.pipeline.pricing import REPAIR_BYTES, SPEC_BYTES, TOKEN_BYTES, is_dynamic, most, unpriced
from headrace.pipeline.problems import RefusedDefinitionError

TABLE = PriceTable(
    "t",
    {
        "a/cheap": ModelPrice(unit=UnitPrices(input=1_000, output=2_000, cached=1_000, reasoning=2_000)),
        "a/dear": ModelPrice(
            unit=UnitPrices(input=2_000, output=20_000, cached=2_000, reasoning=20_000), context=10_000
        ),
    },
)


def refused(text: str) -> list[str]:
    with pytest.raises(RefusedDefinitionError) as caught:
        load_text(text, pending={}, prices=TABLE)
    return [str(problem).partition(";")[0] for problem in caught.value.found]


def test_input_30_a_model_without_a_price_is_refused_at_its_place() -> None:
    """In a step, in a list, in a group, in the defaults; each place once."""
    assert refused(
        "pipeline: p\ndefaults: {model: a/none}\nsteps:\n  a: {llm: {prompt: x}}\n  b: {llm: {prompt: x}}\n"
        "  c: {llm: {prompt: x, model: [a/cheap, b/none]}}\n  g: {steps: {d: {llm: {prompt: x, model: c/none}}}}\n"
    ) == [
        "pipeline.yaml:2:19: E1216 no price is known for model `a/none`",
        "pipeline.yaml:6:41: E1216 no price is known for model `b/none`",
        "pipeline.yaml:7:43: E1216 no price is known for model `c/none`",
    ]


def test_input_30_allow_unpriced_allows_it() -> None:
    """For that step alone."""
    text = "pipeline: p\nsteps:\n  a: {llm: {prompt: x, model: a/none, allow_unpriced: true}}\n"
    plan = load_text(text, pending={}, prices=TABLE).plan
    assert unpriced(plan, TABLE) == ()
    other = load_text(text, pending={}, prices=TABLE).plan
    assert other.digest == plan.digest


def test_a_plan_that_was_stored_elsewhere_is_asked_again() -> None:
    """Prices differ between machines: whoever starts a run checks them by its own."""
    plan = load_text("pipeline: p\nsteps:\n  a: {llm: {prompt: x, model: openai/gpt-5-mini}}\n").plan
    assert unpriced(plan, TABLE) == ("step `a`: no price is known for model `openai/gpt-5-mini`",)


def test_the_most_is_that_of_the_dearest_model_at_the_longest_answer() -> None:
    """A byte is at least as much as a token."""
    spec = {"prompt": "x", "model": ["a/cheap", "a/dear"], "max_tokens": 100}
    given = 50 + SPEC_BYTES
    assert most(spec, TABLE, input_bytes=50) == Amount(
        usd_nanos=-(-(given * 2_000 + 100 * 20_000) // 1000), tokens=given + 100
    )
    assert most({"model": "a/cheap"}, TABLE, input_bytes=0).tokens == SPEC_BYTES + names.OUTPUT_TOKENS


def test_what_is_not_known_is_counted_as_long_as_the_window() -> None:
    """And every turn of a tool loop, and every repair, which see all that was said before."""
    assert most({"model": "a/dear", "max_tokens": 1}, TABLE, input_bytes=None).tokens == 10_001
    assert most({"model": "a/cheap", "max_tokens": 1}, TABLE, input_bytes=None).tokens == names.CONTEXT_TOKENS + 1
    looped = {"model": "a/dear", "max_tokens": 1, "tools": ["x"], "max_rounds": 3, "output_schema": {}}
    assert most(looped, TABLE, input_bytes=10).tokens == 5 * 10_001
    repaired = {"model": "a/dear", "max_tokens": 100, "output_schema": {}, "repair": 1}
    assert most(repaired, TABLE, input_bytes=0).tokens == 2 * (SPEC_BYTES + 100) + 100 * TOKEN_BYTES + REPAIR_BYTES


def test_a_model_that_an_expression_names_is_known_to_the_run_alone() -> None:
    """Also one in a list."""
    assert is_dynamic({"model": "${{ inputs.m }}"}) and is_dynamic({"model": ["a/b", "${{ inputs.m }}"]})
    assert not is_dynamic({"model": "a/b"})
