"""Do the arguments in the file fit the tool? What an expression gives is checked before the call, the rest here."""

import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.contracts.codec import encode_value
from headrace.contracts.events import ToolSpec
from headrace.pipeline import json_schemas, scanner
from headrace.pipeline.positions import Path
from headrace.pipeline.validate import Report, near


def check_arguments(tool: ToolSpec, given: Mapping[str, Any], path: Path, report: Report) -> None:
    """Report unknown and missing arguments, and constants that do not fit."""
    schema = tool.args
    properties: Mapping[str, Any] = schema.get("properties", {})
    is_closed = schema.get("additionalProperties") is False
    for name in schema.get("required", ()):
        if name not in given:
            report.key((*path, "tool"), "E1207", f"`{tool.tool}` needs the argument `{name}`")
    for name, value in given.items():
        at = (*path, "with", name)
        if name not in properties:
            if is_closed:
                report.key(at, "E1207", f"`{tool.tool}` has no argument `{name}`", near(name, properties))
            continue
        if not _has_expression(value):
            checker = _checker(encode_value({"$defs": schema.get("$defs", {}), **properties[name]}))
            for below, message in json_schemas.errors(checker, value)[:1]:
                report.value((*at, *below), "E1207", f"`{name}` does not fit `{tool.tool}`: {message}")
    alternatives = [tuple(option.get("required", ())) for option in schema.get("oneOf", ())]
    names = [option[0] for option in alternatives if len(option) == 1]
    if names and sum(name in given for name in names) != 1:
        listed = ", ".join(f"`{name}`" for name in names)
        report.key((*path, "tool"), "E1207", f"`{tool.tool}` needs exactly one of {listed}")


@functools.lru_cache(maxsize=1024)  # arguments of a few hundred tools; building one takes 40 µs
def _checker(schema: bytes) -> Any:
    return json_schemas.validator(msgspec.json.decode(schema))


def _has_expression(value: Any) -> bool:
    match value:
        case str():
            return scanner.OPEN in value
        case dict():
            return any(_has_expression(inner) for inner in value.values())
        case list():
            return any(_has_expression(inner) for inner in value)
    return False
