"""The JSON Schema of the language, made from its table: what `headrace schema` prints, for editors."""

from collections.abc import Mapping
from typing import Any, Final

from headrace.pipeline.pending import PENDING
from headrace.pipeline.schema import AT_LEAST_ONE, EXACTLY_ONE, PLACES, rows
from headrace.pipeline.shapes import NAME_PATTERN, Row, Shape


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a pipeline file, for editors. Graph and expressions are checked elsewhere."""
    definitions = {place: _record_schema(place) for place in PLACES if place != "pipeline"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Headrace pipeline",
        **_record_schema("pipeline"),
        "$defs": definitions,
    }


def _record_schema(place: str) -> dict[str, Any]:
    properties = {row.key: _shape_schema(row.shape) | {"description": described(row)} for row in rows(place).values()}
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    required = [row.key for row in rows(place).values() if row.required]
    if required:
        schema["required"] = required
    if place in EXACTLY_ONE:
        schema["oneOf"] = [{"required": [key]} for key in EXACTLY_ONE[place]]
    if place in AT_LEAST_ONE:
        schema["anyOf"] = [{"required": [key]} for key in AT_LEAST_ONE[place]]
    beside = {row.key: _beside(row) for row in rows(place).values() if row.needs or row.excludes}
    if beside:
        schema["dependentSchemas"] = beside
    return schema


def described(row: Row) -> str:
    """What a key is for, which kinds of step have it, and whether this release executes it."""
    only = f" Only for: {', '.join(row.kinds)}." if row.kinds else ""
    pending = " Not executed by this release yet." if f"{row.where}.{row.key}" in PENDING else ""
    return row.help + only + pending


def _beside(row: Row) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    if row.needs:
        schema["anyOf"] = [{"required": [key]} for key in row.needs]
    if row.excludes:
        schema["not"] = {"anyOf": [{"required": [key]} for key in row.excludes]}
    return schema


_EXPRESSION: Final = {"type": "string", "pattern": r"\$\{\{"}


def _shape_schema(shape: Shape) -> dict[str, Any]:
    plain = _plain_schema(shape)
    return {"anyOf": [plain, _EXPRESSION]} if shape.templated and shape.kind != "text" else plain


_NAME_SCHEMA: Final = {"type": "string", "pattern": f"^{NAME_PATTERN}$"}
_MODEL_SCHEMA: Final = {"type": "string", "minLength": 1, "maxLength": 256}
_FIXED: Final[Mapping[str, dict[str, Any]]] = {
    "name": _NAME_SCHEMA,
    "flag": {"type": "boolean"},
    "duration": {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"},
    "condition": {"type": ["string", "boolean"]},
    "list expression": {"type": ["string", "array"]},
    "transform": {"type": ["string", "object"]},
    "json schema": {"$ref": "https://json-schema.org/draft/2020-12/schema"},
    "template": {},
    "json": {},
    "steps or one": {"anyOf": [_NAME_SCHEMA, {"type": "array", "items": _NAME_SCHEMA}]},
    "step or value": {
        "anyOf": [
            _NAME_SCHEMA,
            {"type": "object", "properties": {"value": {}}, "required": ["value"], "additionalProperties": False},
        ]
    },
    "models": {"anyOf": [_MODEL_SCHEMA, {"type": "array", "items": _MODEL_SCHEMA, "minItems": 1, "maxItems": 10}]},
    "include": {"type": "string", "pattern": r"^(summary\+)?last [1-9][0-9]*$"},
    "cron": {"type": "string", "pattern": r"^\S+( +\S+){4}$"},
    "timezone": {"type": "string", "minLength": 1, "maxLength": 64},
}


def _plain_schema(shape: Shape) -> dict[str, Any]:
    match shape.kind:
        case "text" | "pattern" | "pipeline":
            return {"type": "string", "minLength": int(shape.low), "maxLength": int(shape.high)}
        case "whole" | "number":
            kind = "integer" if shape.kind == "whole" else "number"
            return {"type": kind, "minimum": shape.low, "maximum": shape.high}
        case "count":
            plain = {"type": "integer", "minimum": shape.low, "maximum": shape.high}
            return {"anyOf": [plain, {"type": "string", "pattern": "^[0-9]+(k|M|G)$"}]}
        case "choice":
            return {"enum": list(shape.choices)}
        case "list":
            assert shape.item is not None
            low = {"minItems": int(shape.low)} if shape.low else {}
            return {"type": "array", "maxItems": int(shape.high), "items": _shape_schema(shape.item)} | low
        case "map":
            assert shape.item is not None
            schema: dict[str, Any] = {"type": "object", "maxProperties": int(shape.high)}
            schema |= {"minProperties": int(shape.low)} if shape.low else {}
            schema |= {} if shape.free_keys else {"propertyNames": {"pattern": f"^{NAME_PATTERN}$"}}
            return schema | {"additionalProperties": _shape_schema(shape.item)}
        case "record":
            return {"$ref": f"#/$defs/{shape.record}"}
    return _FIXED[shape.kind]
