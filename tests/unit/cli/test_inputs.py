"""`-i name=value`: what is meant by it."""

from typing import Any

import pytest

from headrace.cli.inputs import InputsError, complete_inputs, parse_inputs
from headrace.cli.output import UsageError
from headrace.pipeline.bundle import load_text

DECLARED = {
    "text": {"type": "string"},
    "number": {"type": "number"},
    "list": {"type": "array"},
    "either": {"type": ["string", "integer"]},
}


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("text=12", "12"),
        ("text=a=b", "a=b"),
        ("text=", ""),
        ("text=[1, 2", "[1, 2"),
        ("number=12", 12),
        ("number=1.5e3", 1500.0),
        ("list=[1, a]", [1, "a"]),
        ('list=[1, "a"]', [1, "a"]),
        ("either=7", 7),
        ("either=no", "no"),
        ("unknown={a: 1}", {"a": 1}),
        ("unknown=", ""),
    ],
)
def test_text_stays_text_and_the_rest_is_yaml(pair: str, value: Any) -> None:
    """A declared text is never read as anything else; YAML 1.2, so `no` is no truth value."""
    name = pair.partition("=")[0]
    assert parse_inputs([pair], DECLARED) == {name: value}


@pytest.mark.parametrize("pairs", [["who"], ["=x"], ["a=1", "a=2"]])
def test_what_is_no_assignment_is_refused(pairs: list[str]) -> None:
    """Usage, not data."""
    with pytest.raises(UsageError):
        parse_inputs(pairs, {})


def test_a_value_that_is_no_yaml_is_shown_with_its_name() -> None:
    """And nothing was started."""
    with pytest.raises(InputsError, match=r"-i list=\[1: not YAML"):
        parse_inputs(["list=[1"], DECLARED)


def test_inputs_are_completed_and_checked_at_once() -> None:
    """Defaults are applied; every reason is in one text."""
    plan = load_text(
        "pipeline: p\ninputs: {a: {type: integer}, b: {type: integer, default: 2}}\nsteps: {s: {transform: {x: 1}}}\n"
    ).plan
    assert complete_inputs(plan, {"a": 1}) == {"a": 1, "b": 2}
    with pytest.raises(InputsError, match="`a` is required") as refused:
        complete_inputs(plan, {"b": "x", "c": 1})
    assert "no input `c`" in str(refused.value)
    assert "the input `b`" in str(refused.value)
