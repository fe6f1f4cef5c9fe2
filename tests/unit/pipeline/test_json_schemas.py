"""JSON Schema, offline and in linear time."""

import time

import pytest

from headrace.pipeline.json_schemas import ERRORS_MAX, SchemaRefusedError, errors, validator


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"$ref": "http://127.0.0.1:1/x"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"$ref": "#/$defs/none"}}},
        {"pattern": "(?=x)"},
        {"pattern": "("},
    ],
)
def test_input_53_schemas_that_cannot_be_used_are_refused(schema: dict[str, object]) -> None:
    """Nothing is fetched, nothing is read."""
    with pytest.raises(SchemaRefusedError):
        validator(schema)


def test_input_53_a_catastrophic_pattern_is_linear() -> None:
    """The backtracking kind would not end."""
    checker = validator({"pattern": "^(a+)+$"})
    began = time.perf_counter()
    assert errors(checker, "a" * 5000 + "b")
    assert time.perf_counter() - began < 1


def test_input_53_recursive_schemas_are_fine() -> None:
    """A tree is described by itself."""
    checker = validator({"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"})
    assert errors(checker, [[], [[]]]) == []
    assert errors(checker, [[1]])[0][0] == (0, 0)


def test_errors_are_bounded_and_carry_their_path() -> None:
    """A list of a thousand wrong items is one mistake."""
    found = errors(validator({"items": {"type": "string"}}), list(range(1000)))
    assert len(found) == ERRORS_MAX
    assert found[3] == ((3,), '3 is not of type "string"')
