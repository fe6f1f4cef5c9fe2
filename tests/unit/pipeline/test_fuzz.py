"""Whatever bytes and expressions come: a value or a refusal, soon, and the same each time.

The number here is what continuous integration has time for, and what fails is made small. `make fuzz` has a million of
its own (tests/fuzz), without the cost of making them small.
"""

import copy
import os
import time
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.pipeline.test_mermaid import TEXT as DRAWN_TEXT
from tests.unit.pipeline.test_numbering import NESTED
from tests.unit.pipeline.test_overview import TEXT as PLANNED

from headrace.contracts.errors import ExpressionError
from headrace.pipeline.bundle import load_text
from headrace.pipeline.compile import compile_plan
from headrace.pipeline.drawing import svg
from headrace.pipeline.evaluation import compile_expression, evaluate
from headrace.pipeline.loader import load_bytes
from headrace.pipeline.mermaid import mermaid
from headrace.pipeline.overview import overview
from headrace.pipeline.problems import CODES, Problem, RefusedDefinitionError
from headrace.pipeline.schema import SCHEMA

EXAMPLES = int(os.environ.get("HEADRACE_FUZZ", "250"))
SECONDS_MAX = 1.0
"""CPU time of one input: more is a hang."""
FUZZED = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

WORDS = st.sampled_from(
    [
        *("inputs.a", "inputs.t", "inputs.l", "steps.s.output", "steps.?s.?output", "item", "index", "carry.n", "vars"),
        *("1", "-7", "0", "2.5", "9223372036854775807", "'x'", '"é😀"', "true", "null", "[1, 2]", "{'k': [1]}", "b'x'"),
        *("+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "!", "? 1 :", "in", ".", ",", "(", ")", "[", "]"),
        *(".map(x, x", ".filter(x, x > 1)", ".all(x, x == 1)", ".exists(", "size(", "has(", "matches(", ".orValue("),
        *("json(", "text(", "join(", "split(", "sort_by(", "group_by(", "unique(", "flatten(", "keys(", "merge("),
        *(
            "duration('1h')",
            "timestamp(",
            "int(",
            "string(",
            "double(",
            "${{",
            "}}",
            "$${{",
            "\n",
            "//",
            "\\",
            "optMap(",
        ),
    ]
)
SOURCES = st.one_of(
    st.lists(WORDS, max_size=12).map(" ".join), st.lists(WORDS, max_size=8).map("".join), st.text(max_size=40)
)
VALUES: dict[str, Any] = {
    "inputs": {"a": 3, "t": "text", "l": [1, {"k": None}, "x"]},
    "vars": {},
    "steps.s.output": {"x": [1.5, "y"]},
    "item": {"k": "v"},
    "index": 2,
    "carry": {"n": 1},
}


def outcome(source: str) -> str:
    """The value as text, or the code of the failure."""
    try:
        return repr(evaluate(compile_expression(source), VALUES))
    except ExpressionError as error:
        return f"{error.failure().code}: {error}"


@FUZZED
@given(SOURCES)
def test_otp_n6_any_expression_has_a_value_or_an_error(source: str) -> None:
    """Twice the same, and within a second."""
    began = time.process_time()
    first = outcome(source)
    assert time.process_time() - began < SECONDS_MAX, source
    assert outcome(source) == first


KEYS = st.sampled_from([*sorted({row.key for row in SCHEMA}), "a", "b", "unknown", "${{ x }}"])
SCALARS = st.one_of(
    st.sampled_from(
        ["1s", "5m", "a", "b", "fs.read", "x.y", "true", "false", "${{ inputs.x }}", "${{ item }}", "0 6 * * *"]
    ),
    SOURCES.map(lambda source: "${{ " + source + " }}"),
    st.integers(-5, 10**19),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
    st.booleans(),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


def check(text: str) -> None:
    """A plan, the same from its stored form, or a refusal with places and known codes; within a second."""
    began = time.process_time()
    found: tuple[Problem, ...] = ()
    try:
        bundle = load_text(text, pending={})
        assert compile_plan(bundle.data, pending={}).digest == bundle.digest
        svg(bundle.plan)
        mermaid(bundle.plan)
        overview(bundle.plan)
    except RefusedDefinitionError as error:
        found = error.found
        if not found:
            raise
    assert {problem.code for problem in found} <= set(CODES)
    assert all(problem.line >= 1 and problem.column >= 1 for problem in found)
    assert time.process_time() - began < SECONDS_MAX, text


@FUZZED
@given(st.dictionaries(KEYS, TREES, max_size=5), st.dictionaries(st.sampled_from(["a", "b", "c"]), TREES, max_size=3))
def test_any_document_is_a_plan_or_refused_with_known_codes(top: dict[str, Any], steps: dict[str, Any]) -> None:
    """Whatever stands under which key."""
    check(yaml.safe_dump({**top, "pipeline": "p", "steps": steps}, allow_unicode=True))


SOUND = [yaml.safe_load(text) for text in (NESTED, DRAWN_TEXT, PLANNED)]
"""Every kind, every modifier, three levels deep."""


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every value of a tree, by the map or list that holds it."""
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        value = pending.pop()
        inner = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        for key, below in inner:
            found.append((value, key))
            if isinstance(below, (dict, list)):
                pending.append(below)
    return found


@FUZZED
@given(st.sampled_from(SOUND), st.randoms(use_true_random=False), st.integers(1, 3), TREES, KEYS)
def test_a_sound_file_that_was_changed_is_a_plan_or_refused(
    sound: Any, random: Any, changes: int, tree: Any, key: str
) -> None:
    """Values taken out, replaced by others, exchanged, and put under other keys, at any depth."""
    document = copy.deepcopy(sound)
    for _ in range(changes):
        found = places(document)
        if not found:
            break
        holder, at = random.choice(found)
        other, other_at = random.choice(found)
        match random.randrange(5):
            case 0:
                del holder[at]
            case 1:
                holder[at] = copy.deepcopy(tree)
            case 2:
                holder[at] = copy.deepcopy(other[other_at])
            case 3 if isinstance(holder, dict):
                holder[key] = copy.deepcopy(other[other_at])
            case _ if isinstance(holder, dict):
                holder[random.choice(["a", "x", "go", "list"])] = holder.pop(at)
    check(yaml.dump(document, Dumper=Plain, allow_unicode=True))


class Plain(yaml.SafeDumper):
    """Without anchors for what is there twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


BYTES = st.one_of(
    st.binary(max_size=200), st.text(alphabet="ab:-[]{}&*!|>'\"#%@`, \n\t?0.", max_size=120).map(str.encode)
)


@FUZZED
@given(BYTES)
def test_any_bytes_are_a_document_or_refused(data: bytes) -> None:
    """No crash, no hang, no third thing."""
    began = time.process_time()
    found: tuple[Problem, ...] = ()
    try:
        load_bytes(data, "p.yaml")
    except RefusedDefinitionError as error:
        found = error.found
    assert {problem.code for problem in found} <= set(CODES)
    assert time.process_time() - began < SECONDS_MAX
