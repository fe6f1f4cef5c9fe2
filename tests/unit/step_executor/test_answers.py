"""Answers that have to fit a schema."""

import pytest

from headrace.pipeline import json_schemas
from headrace_step_executor.answers import NotFittingError, value_of

CHECKER = json_schemas.validator(
    {"type": "object", "properties": {"n": {"type": ["integer", "null"]}}, "required": ["n"]}
)


@pytest.mark.parametrize("text", ['{"n": 1}', ' {"n":1}\n', '```json\n{"n": 1}\n```', '\n```\n{"n": 1}\n```\n'])
def test_a_value_that_fits_is_taken_with_or_without_a_fence(text: str) -> None:
    """Models put their JSON into Markdown, whatever they are told."""
    assert value_of(text, CHECKER) == b'{"n":1}'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not valid JSON"),
        ('{"n": 1', "not valid JSON"),
        ('{"n": 1} or so', "not valid JSON"),
        ("[" * 10_000, "too deep|not valid JSON"),
        ('{"n": ' + "[" * 10_000 + "]" * 10_000 + "}", "too deep"),
        ('{"n": 1, "n": 2}', "'n' stands twice"),
        ('{"n": NaN}', "NaN is no number"),
        ('{"n": -Infinity}', "-Infinity is no number"),
        ('{"n": 1e999}', "not finite|not valid JSON"),
        ('{"n": ' + "9" * 30 + "}", "64"),
        ('{"n": ' + "9" * 5_000 + "}", "not valid JSON"),
        ('{"n": "x"}', "does not fit the schema: n: "),
        ("{}", "does not fit the schema: the whole: "),
        ("x" * (4 * 1024 * 1024 + 1), "at most"),
    ],
)
def test_input_39_what_does_not_fit_is_told_in_words(text: str, why: str) -> None:
    """Invalid, huge, too deep, a key twice, NaN: the model is shown its own error."""
    with pytest.raises(NotFittingError, match=why) as raised:
        value_of(text, CHECKER)
    assert len(str(raised.value)) < 3_000
