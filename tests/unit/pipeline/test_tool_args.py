"""Arguments in the file against the tool's schema; what an expression gives is not known yet."""

from headrace.contracts.events import ToolSpec
from headrace.pipeline.positions import Positions
from headrace.pipeline.tool_args import check_arguments
from headrace.pipeline.validate import Report

ARGS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["q"],
    "properties": {"q": {"$ref": "#/$defs/word"}, "n": {"type": "integer"}, "deep": {"type": "object"}},
    "$defs": {"word": {"type": "string", "maxLength": 3}},
}


def texts(given: dict[str, object], **schema: object) -> list[str]:
    report = Report("p.yaml", Positions())
    tool = ToolSpec(tool="t", version="1", description="", args=ARGS | schema)
    check_arguments(tool, given, ("steps", "s"), report)
    return [problem.text for problem in report.found]


def test_constants_are_checked_and_expressions_are_not() -> None:
    """At any depth; shared definitions of the schema are seen."""
    assert texts({"q": "abc", "n": 1}) == []
    assert texts({"q": "${{ inputs.long }}", "n": "${{ 1 }}", "deep": {"x": ["${{ 2 }}"]}}) == []
    assert texts({"q": "abcd", "n": "1"}) == [
        '`q` does not fit `t`: "abcd" is longer than 3 characters',
        '`n` does not fit `t`: "1" is not of type "integer"',
    ]


def test_open_schemas_take_other_arguments() -> None:
    """A tool of somebody else may."""
    assert texts({"q": "a", "other": 1}) == ["`t` has no argument `other`"]
    assert texts({"q": "a", "other": 1}, additionalProperties=True) == []
    assert texts({"n": 1}) == ["`t` needs the argument `q`"]
