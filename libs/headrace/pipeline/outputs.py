"""What is known of a step's output before it has run: the keys it has."""

from collections.abc import Mapping
from typing import Any, Final

from headrace.contracts.events import ToolSpec
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS

FOREACH_FIELDS: Final = frozenset({"items", "failed", "counts"})
APPROVAL_FIELDS: Final = frozenset({"decision", "by", "at", "comment"})
_NOTHING: Final = frozenset[str]()


def output_fields(body: Any, catalogue: Mapping[str, ToolSpec] | None) -> frozenset[str] | None:
    """The keys of a step's output, empty when it is null; None where only the value tells. Takes any sound body."""
    if not isinstance(body, dict):
        return None
    if "foreach" in body:
        return FOREACH_FIELDS
    if "while" in body or "until" in body:
        return None  # without an iteration it is what `carry` says
    if isinstance(body.get("fallback"), (str, dict)):
        return None
    if "steps" in body:
        return frozenset(body.get("outputs", ()))
    if "switch" in body:
        return _of_cases(body["switch"])
    if "approval" in body:
        return APPROVAL_FIELDS
    if "wait" in body or "emit" in body:
        return _NOTHING
    transform = body.get("transform")
    if isinstance(transform, dict):
        return _of_transform(transform)
    known = BUILTIN_TOOLS if catalogue is None else catalogue
    return _of_tool(known.get(body["tool"])) if isinstance(body.get("tool"), str) else None


def _of_transform(transform: Mapping[str, Any]) -> frozenset[str] | None:
    if "from" not in transform:
        return frozenset(transform)
    if "aggregate" in transform and "group_by" not in transform:
        return frozenset(transform["aggregate"])
    return None


def _of_cases(cases: Any) -> frozenset[str] | None:
    """Of a switch: what any of its cases gives."""
    found: frozenset[str] = _NOTHING
    for case in cases:
        body = case.get("default", case)
        found |= frozenset(body.get("outputs", ()))
    return found


def _of_tool(tool: ToolSpec | None) -> frozenset[str] | None:
    result = None if tool is None else tool.result
    if not isinstance(result, Mapping) or result.get("additionalProperties") is not False:
        return None
    return frozenset(result.get("properties", ()))
