"""The table of built-in tools: closed schemas, honest effects."""

from typing import Any

import jsonschema_rs
import pytest

from headrace.contracts.events import ToolSpec
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS, builtin_tools
from headrace.pipeline.schema import EFFECTS

TOOLS = list(BUILTIN_TOOLS.values())


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every object schema inside a schema."""
    found = [schema] if isinstance(schema, dict) and schema.get("type") == "object" else []
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return found + [each for value in inner for each in objects(value)]


@pytest.mark.parametrize("tool", TOOLS, ids=[tool.tool for tool in TOOLS])
def test_a_tool_is_described_completely(tool: ToolSpec) -> None:
    """Schemas are valid and closed, defaults fit, effect and risk are known words."""
    for schema in (tool.args, tool.result):
        jsonschema_rs.meta.validate(schema)
        for inner in objects(schema):
            assert "additionalProperties" in inner, inner
        for name, field in schema["properties"].items():
            if "default" in field:
                assert jsonschema_rs.is_valid(field, field["default"]), name
    assert tool.result["additionalProperties"] is False
    assert tool.effect in EFFECTS
    assert tool.risk in ("read", "write", "outbound", "exec")
    assert tool.workspace == (tool.tool.startswith("fs.") or tool.tool == "text.measure")


def test_names_are_unique_and_sorted() -> None:
    """The catalogue's hash does not depend on an order."""
    names = [tool.tool for tool in builtin_tools()]
    assert names == sorted(set(names))


def test_what_cannot_be_repeated_says_so() -> None:
    """A second append adds twice, a second move finds nothing."""
    at_most_once = {tool.tool for tool in TOOLS if tool.effect == "at_most_once"}
    assert at_most_once == {"fs.append", "fs.move"}
