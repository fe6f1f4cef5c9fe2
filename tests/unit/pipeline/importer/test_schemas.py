"""Schemas: shorthand, and fields that later steps read."""

import pytest

from headrace.pipeline.importer.schemas import is_schema, merged, short


@pytest.mark.parametrize(
    ("shorthand", "schema"),
    [
        ("string", {"type": "string"}),
        ("float", {"type": "number"}),
        ("any", {"description": "any"}),
        ("when it was made", {"description": "when it was made"}),
        ([], {"type": "array"}),
        (["string"], {"type": "array", "items": {"type": "string"}}),
        ({}, {"type": "object"}),
        (None, {}),
    ],
)
def test_a_shorthand_is_a_schema(shorthand: object, schema: object) -> None:
    """As the old examples write it."""
    assert short(shorthand) == schema


def test_a_field_called_type_is_no_keyword() -> None:
    """`{type: string, name: string}` is a shorthand, `{type: object, required: [a]}` a schema."""
    assert not is_schema({"type": "string", "name": "string"})
    assert is_schema({"type": "object", "required": ["a"]})
    assert is_schema({"properties": {"a": {}}})


def test_fields_that_are_read_are_added_to_a_schema() -> None:
    """Known ones stay as the file has them."""
    assert merged(None, {}) is None
    own = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}
    assert merged(own, {"a": {}, "b": {"type": "array"}}) == {
        "type": "object",
        "required": ["a", "b"],
        "properties": {"a": {"type": "string"}, "b": {"type": "array"}},
    }
