"""JSON Schemas for the answers of models: the file's own, written short or in full, and what later steps read."""

from collections.abc import Mapping
from typing import Any, Final

from headrace.pipeline import json_schemas, scanner
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.unit import Step
from headrace.pipeline.positions import Path

_WORDS: Final = {
    "string": "string", "text": "string", "str": "string", "integer": "integer", "int": "integer", "number": "number",
    "float": "number", "boolean": "boolean", "bool": "boolean", "array": "array", "list": "array", "object": "object",
    "map": "object", "any": "",
}  # fmt: skip
_KEYWORDS: Final = frozenset({"type", "properties", "items", "enum", "$ref", "oneOf", "anyOf", "allOf", "const"})
INSTRUCTOR: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string"}, "analysis": {"type": "string"}, "summary": {"type": "string"}},
}
"""The one schema that `gemini_instructor` had, whatever the file said."""


def taken(step: Step, section: Section) -> dict[str, Any] | None:
    """The schema that a step asks for; None when it asks for none."""
    for key in ("output_schema", "response_schema", "schema"):
        if key not in section:
            continue
        value = section.take(key)
        if not isinstance(value, dict):
            section.wrong(key, "a JSON Schema")
        at = (*step.at, "llm", "output_schema")
        schema = value if key == "output_schema" or is_schema(value) else short(value)
        checked(step, schema, section.at(key))
        if key == "output_schema":
            now = "every rule of the schema is enforced; an answer that does not fit is repaired or fails"
            step.notes.add("N1552", section.at(key), now, "never enforced", at=at)
            return schema
        now = f"`{key}` is enforced as `output_schema`"
        step.notes.add("N1552", section.at(key), now, "ignored", at=at)
        return schema
    return None


def checked(step: Step, schema: Mapping[str, Any], where: Path) -> None:
    """Refuse what is no JSON Schema, or holds what would be an expression."""
    try:
        json_schemas.validator(schema)
    except json_schemas.SchemaRefusedError as error:
        step.notes.refuse("E1503", where, f"not a JSON Schema: {error}", "never looked at")
    if scanner.OPEN in str(schema):
        step.notes.refuse("E1510", where, "a schema is a constant and cannot hold `${{`", "never looked at")


def is_schema(value: Mapping[str, Any]) -> bool:
    """Whether a map is JSON Schema rather than the shorthand, in which `type` may be a field like any other."""
    if isinstance(value.get("properties"), dict) or any(key in value for key in ("$ref", "oneOf", "anyOf", "allOf")):
        return True
    return value.get("type") in _WORDS and set(value) <= _KEYWORDS | {"required", "description", "title", "default"}


def short(value: Any) -> dict[str, Any]:
    """The JSON Schema of a shorthand: `{name: string, findings: array, steps: [{id: string}]}`."""
    match value:
        case str():
            word = _WORDS.get(value.strip().lower(), "")
            return {"type": word} if word else {"description": value} if value.strip() else {}
        case list():
            return {"type": "array", "items": short(value[0])} if value else {"type": "array"}
        case dict():
            fields = {key: short(inner) for key, inner in value.items()}
            return {"type": "object", "required": list(fields), "properties": fields} if fields else {"type": "object"}
    return {}


def merged(own: Mapping[str, Any] | None, promised: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """A schema with the fields that later steps read added; None when there is neither."""
    if not promised:
        return None if own is None else dict(own)
    schema: dict[str, Any] = {"type": "object", **(own or {})}
    properties = schema.get("properties")
    known = dict(properties) if isinstance(properties, dict) else {}
    required = schema.get("required")
    needed = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    schema["required"] = list(dict.fromkeys([*needed, *promised]))
    schema["properties"] = known | {name: dict(value) for name, value in promised.items() if name not in known}
    return schema
