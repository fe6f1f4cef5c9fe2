"""Which models a pipeline names, whether their prices are known, and the most that an attempt can cost. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from headrace.contracts import names
from headrace.contracts.money import NOTHING, Amount
from headrace.pipeline import scanner
from headrace.pipeline.checked import Checked, CheckedBlock, CheckedStep
from headrace.pipeline.plan import Plan
from headrace.pipeline.positions import Path
from headrace.pipeline.prices import PriceTable
from headrace.pipeline.validate import Report

ROUNDS: Final = 8
"""Turns of a tool loop that says nothing of its own."""
REPAIRS: Final = 2
"""Turns in which the model sees what was wrong with its answer."""
MESSAGE_BYTES: Final = 16
"""What providers add to a message before the model reads it takes a few tokens; so many bytes cover them."""
SPEC_BYTES: Final = 64
"""Of a prompt and a system text, whose keys in the fields are shorter than that."""
TOKEN_BYTES: Final = 8
"""Of an answer that is shown to its model again: twice what text takes."""
REPAIR_BYTES: Final = 4_096
"""What the model is told about its answer."""
UNPRICED_HINT: Final = "name its price in the file of HEADRACE_PRICES_FILE, or say `allow_unpriced: true`"


def models_of(spec: Any) -> tuple[str, ...]:
    """The models that an `llm` step may call, by its spec, rendered or not; those with expressions are left out."""
    model = spec.get("model", "") if isinstance(spec, dict) else ""
    listed = model if isinstance(model, list) else [model]
    return tuple(one for one in listed if isinstance(one, str) and one and scanner.OPEN not in one)


def is_dynamic(spec: Any) -> bool:
    """True when only a run can tell which models are called."""
    model = spec.get("model", "") if isinstance(spec, dict) else ""
    listed = model if isinstance(model, list) else [model]
    return any(not isinstance(one, str) or scanner.OPEN in one for one in listed)


def unpriced(plan: Plan, table: PriceTable) -> tuple[str, ...]:
    """One line for each step that names a model whose price is not known and must be."""
    return tuple(
        f"step `{node.path}`: no price is known for model `{model}`"
        for node in plan.nodes
        if node.kind == "llm" and not node.spec.source.get("allow_unpriced", False)
        for model in models_of(node.spec.source)
        if table.find(model) is None
    )


def check_prices(checked: Checked, report: Report, table: PriceTable) -> None:
    """Report every model of a document whose price is not known and must be."""
    told: set[Path] = set()
    for step in every_step(checked.root):
        if step.kind != "llm" or step.spec.source.get("allow_unpriced", False):
            continue
        own = "model" in step.body["llm"]
        at: Path = (*step.at, "llm", "model") if own else ("defaults", "model")
        listed = step.spec.source["model"]
        for model in models_of(step.spec.source):
            place = (*at, listed.index(model)) if isinstance(listed, list) else at
            if table.find(model) is None and place not in told:
                told.add(place)
                report.value(place, "E1216", f"no price is known for model `{model[:100]}`", UNPRICED_HINT)


def every_step(block: CheckedBlock) -> Iterator[CheckedStep]:
    """The steps of a block, at any depth."""
    for step in block.steps:
        yield step
        for inner in step.blocks:
            yield from every_step(inner)


def output_tokens_of(spec: Mapping[str, Any]) -> int:
    """How long one answer may be where money is counted."""
    given = spec.get("max_tokens")
    return given if isinstance(given, int) else names.OUTPUT_TOKENS


def most(spec: Mapping[str, Any], table: PriceTable, *, input_bytes: int | None) -> Amount:
    """The most that one attempt of an `llm` step can cost, over all models that it may call.

    A model reads no more tokens than it is given bytes. What is not known, and every turn of a tool loop, is counted as
    long as the model's window is. A model without a known price costs no money and its tokens.

    Args:
        spec: Its fields; the models and `max_tokens` must be known.
        input_bytes: Of the rendered fields; None where that is not known.
    """
    usd_nanos = tokens = 0
    for model in models_of(spec):
        price = table.find(model)
        calls = _calls_of(spec, (0 if price is None else price.context) or names.CONTEXT_TOKENS, input_bytes)
        amount = NOTHING
        for given, output in calls:
            amount += Amount(tokens=given + output) if price is None else price.most(given, output)
        usd_nanos, tokens = max(usd_nanos, amount.usd_nanos), max(tokens, amount.tokens)
    return Amount(usd_nanos=usd_nanos, tokens=tokens)


def _calls_of(spec: Mapping[str, Any], window: int, input_bytes: int | None) -> list[tuple[int, int]]:
    """(input, output) in tokens of each call that one attempt may make."""
    output = output_tokens_of(spec)
    repairs = int(spec.get("repair", REPAIRS)) if "output_schema" in spec else 0
    if spec.get("tools"):
        given = max(window, (input_bytes or 0) + SPEC_BYTES)
        return [(given, output)] * (int(spec.get("max_rounds", ROUNDS)) + repairs)
    longer = output * TOKEN_BYTES + REPAIR_BYTES
    first = window if input_bytes is None else input_bytes + SPEC_BYTES
    return [(first + turn * longer, output) for turn in range(1 + repairs)]
