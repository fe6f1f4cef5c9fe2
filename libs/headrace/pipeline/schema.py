"""The language as one table: which key stands where, what it holds, its bounds, what it is for.

Validation, "did you mean" and the published JSON Schema all come from here, so that a key cannot be accepted without
being checked, or checked without being documented. What is not in the table is an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from headrace.contracts import names

KINDS: Final = ("llm", "pipeline", "tool", "transform", "wait")
NAME_PATTERN: Final = "[a-z][a-z0-9_-]{0,62}"
EFFECTS: Final = ("pure", "idempotent", "at_most_once")
MODEL_DEFAULT: Final = "echo/echo"
"""Answers without a key and without a network, so that a pipeline without a model runs anywhere."""
TEXT_CHARS_MAX: Final = 256 * 1024
LIST_MAX: Final = 10_000
PARALLEL_MAX: Final = 10_000

ShapeKind = Literal[
    "text", "name", "flag", "whole", "number", "choice", "duration", "condition", "list expression", "template",
    "transform", "json schema", "steps or one", "pattern", "json", "pipeline", "list", "map", "record",
]  # fmt: skip


@dataclass(slots=True, frozen=True)
class Shape:
    """What a value must be. `templated`: text with `${{ … }}` may stand for it, and is checked when it has a value."""

    kind: ShapeKind
    low: float = 0
    high: float = TEXT_CHARS_MAX
    """Bounds of a number, or of the length of text, lists and maps."""
    choices: tuple[str, ...] = ()
    item: "Shape | None" = None
    record: str = ""
    """The `where` of the rows that a record's keys are."""
    templated: bool = False
    free_keys: bool = False
    """A map whose keys are somebody else's, not names of ours."""


@dataclass(slots=True, frozen=True)
class Row:
    """A key. `kinds`: the kinds of step that have it, empty for all; `needs`: another key that must stand beside it."""

    where: str
    key: str
    shape: Shape
    help: str
    required: bool = False
    kinds: tuple[str, ...] = ()
    needs: str = ""


def _list(item: Shape, high: int = LIST_MAX) -> Shape:
    return Shape("list", 0, high, item=item)


def _map(item: Shape, low: int = 0, high: int = LIST_MAX) -> Shape:
    return Shape("map", low, high, item=item)


def _free_map(item: Shape, high: int = LIST_MAX) -> Shape:
    return Shape("map", 0, high, item=item, free_keys=True)


def _record(where: str) -> Shape:
    return Shape("record", record=where)


def _choice(*choices: str) -> Shape:
    return Shape("choice", choices=choices)


_TEXT: Final = Shape("text")
_NAME: Final = Shape("name")
_FLAG: Final = Shape("flag")
_DURATION: Final = Shape("duration")
_TEMPLATE: Final = Shape("template")
_LABELS: Final = _free_map(Shape("text", high=256), high=64)
_WORK: Final = ("llm", "tool", "transform")
"""Kinds whose attempts an executor runs."""

SCHEMA: Final[tuple[Row, ...]] = (
    Row("pipeline", "pipeline", _NAME, "The pipeline's name.", required=True),
    Row("pipeline", "description", _TEXT, "What it is for."),
    Row(
        "pipeline", "inputs", _map(Shape("json schema")), "JSON Schema of each input; required unless it has a default."
    ),
    Row(
        "pipeline",
        "outputs",
        _map(_TEMPLATE),
        "What the run gives: a value, or a tree with expressions, for each name.",
    ),
    Row("pipeline", "triggers", _list(_record("trigger"), 100), "Events that start a run."),
    Row(
        "pipeline", "defaults", _record("defaults"), "Applied to every step of a matching kind that says nothing else."
    ),
    Row("pipeline", "limits", _record("limits"), "Bounds of one run."),
    Row("pipeline", "workspace", _FLAG, "Whether the run has a directory of its own."),
    Row("pipeline", "vars", _map(Shape("json")), "Constants, read as `vars.<name>`."),
    Row(
        "pipeline",
        "steps",
        _map(_record("step"), 1, names.STEPS_MAX),
        "The steps by id; order means nothing.",
        required=True,
    ),
    Row("pipeline", "labels", _LABELS, "For finding and grouping runs."),
    Row("trigger", "event", _NAME, "The event's name, the last token of `hr.trig.<tenant>.<name>`.", required=True),
    Row("trigger", "when", Shape("condition"), "Start only if this holds; it sees `event`."),
    Row("trigger", "inputs", _map(_TEMPLATE), "The run's inputs, made from `event`."),
    Row("defaults", "timeout", _DURATION, "Of one attempt."),
    Row("defaults", "deadline", _DURATION, "Of all attempts of a step."),
    Row("defaults", "retry", _record("retry"), "How failed attempts are repeated."),
    Row("defaults", "model", _TEXT, "For `llm` steps, `provider/model`."),
    Row("limits", "deadline", _DURATION, "Of the run; 24h unless given."),
    Row("limits", "max_parallel", Shape("whole", 1, PARALLEL_MAX), "Steps in flight in one run; 16 unless given."),
    Row("retry", "attempts", Shape("whole", 1, names.RETRY_ATTEMPTS_MAX), "All attempts, the first included."),
    Row("retry", "initial", _DURATION, "Wait before the second attempt; it doubles from there, with jitter."),
    Row("retry", "max", _DURATION, "Longest wait between two attempts."),
    Row("retry", "on", _list(Shape("name"), 50), "Error codes worth repeating; else what the error itself says."),
    Row("step", "llm", _record("llm"), "One call of a language model.", kinds=("llm",)),
    Row("step", "tool", Shape("text", 1, 128), "One call of this tool.", kinds=("tool",)),
    Row(
        "step", "transform", Shape("transform"), "An expression or a map of expressions; no I/O.", kinds=("transform",)
    ),
    Row(
        "step",
        "pipeline",
        Shape("pipeline"),
        "A child run: `./file.yaml`, `name` or `name@digest`.",
        kinds=("pipeline",),
    ),
    Row("step", "wait", _record("wait"), "A durable timer.", kinds=("wait",)),
    Row(
        "step",
        "with",
        _free_map(_TEMPLATE),
        "Arguments of the tool, or inputs of the child.",
        kinds=("tool", "pipeline"),
    ),
    Row("step", "description", _TEXT, "What it is for."),
    Row(
        "step",
        "needs",
        Shape("steps or one"),
        "Steps that must have ended well first; reading their values implies it.",
    ),
    Row("step", "when", Shape("condition"), "Skipped if this is false."),
    Row(
        "step",
        "foreach",
        Shape("list expression"),
        "Run once for each item of this list; `item` and `index` are in scope.",
    ),
    Row("step", "as", _NAME, "What the item is called instead of `item`.", needs="foreach"),
    Row("step", "max_parallel", Shape("whole", 1, PARALLEL_MAX), "Items in flight; 8 unless given.", needs="foreach"),
    Row(
        "step", "on_item_error", _choice("fail", "continue"), "What a failed item does to the others.", needs="foreach"
    ),
    Row(
        "step", "timeout", _DURATION, "Of one attempt; 2m unless given, 1h for a child run.", kinds=(*_WORK, "pipeline")
    ),
    Row("step", "deadline", _DURATION, "Of all attempts; 1h unless given.", kinds=(*_WORK, "pipeline")),
    Row("step", "retry", _record("retry"), "How failed attempts are repeated.", kinds=(*_WORK, "pipeline")),
    Row("step", "on_error", _choice("fail", "continue"), "Whether the run goes on when this step fails."),
    Row(
        "step",
        "effect",
        _choice(*EFFECTS),
        "What a second call would do; the tool says unless given.",
        kinds=("llm", "tool"),
    ),
    Row(
        "step", "on_unknown", _choice("fail", "retry"), "When nobody knows whether it happened.", kinds=("llm", "tool")
    ),
    Row("step", "artifacts", _list(Shape("pattern"), 100), "Files of the workspace to keep afterwards.", kinds=_WORK),
    Row("step", "priority", Shape("whole", -100, 100), "Higher starts first; 0 unless given."),
    Row("step", "labels", _LABELS, "For finding and grouping."),
    Row("llm", "model", Shape("text", 1, 256, templated=True), "`provider/model`; echo/echo unless given."),
    Row("llm", "prompt", Shape("text", templated=True), "What the user says."),
    Row("llm", "system", Shape("text", templated=True), "What the model is told about its part."),
    Row("llm", "messages", _list(_record("message")), "A whole conversation instead of a prompt."),
    Row("llm", "max_tokens", Shape("whole", 1, 10_000_000, templated=True), "Longest answer."),
    Row("llm", "temperature", Shape("number", 0, 2, templated=True), "How much chance."),
    Row("llm", "options", _free_map(_TEMPLATE), "The provider's own options."),
    Row("message", "role", _choice("system", "user", "assistant"), "Who speaks.", required=True),
    Row("message", "content", Shape("text", templated=True), "What is said.", required=True),
    Row("wait", "for", Shape("duration", templated=True), "How long."),
    Row("wait", "until", Shape("text", templated=True), "An instant, `2026-01-31T06:00:00Z`."),
)

EXACTLY_ONE: Final[Mapping[str, tuple[str, ...]]] = {
    "step": KINDS,
    "llm": ("prompt", "messages"),
    "wait": ("for", "until"),
}
"""Records of which exactly one of these keys must be there."""


def rows(where: str) -> dict[str, Row]:
    """The keys of a record, by name."""
    return _BY_PLACE[where]


_BY_PLACE: Final[Mapping[str, dict[str, Row]]] = {
    place: {row.key: row for row in SCHEMA if row.where == place}
    for place in dict.fromkeys(row.where for row in SCHEMA)
}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a pipeline file, for editors. Graph and expressions are checked elsewhere."""
    definitions = {place: _record_schema(place) for place in _BY_PLACE if place != "pipeline"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Headrace pipeline",
        **_record_schema("pipeline"),
        "$defs": definitions,
    }


def _record_schema(place: str) -> dict[str, Any]:
    properties = {}
    for row in rows(place).values():
        only = f" Only for: {', '.join(row.kinds)}." if row.kinds and row.kinds != (row.key,) else ""
        properties[row.key] = _shape_schema(row.shape) | {"description": row.help + only}
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    required = [row.key for row in rows(place).values() if row.required]
    if required:
        schema["required"] = required
    if place in EXACTLY_ONE:
        schema["oneOf"] = [{"required": [key]} for key in EXACTLY_ONE[place]]
    needs = {row.key: [row.needs] for row in rows(place).values() if row.needs}
    if needs:
        schema["dependentRequired"] = needs
    return schema


_EXPRESSION: Final = {"type": "string", "pattern": r"\$\{\{"}


def _shape_schema(shape: Shape) -> dict[str, Any]:
    plain = _plain_schema(shape)
    return {"anyOf": [plain, _EXPRESSION]} if shape.templated and shape.kind != "text" else plain


_NAME_SCHEMA: Final = {"type": "string", "pattern": f"^{NAME_PATTERN}$"}
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
}


def _plain_schema(shape: Shape) -> dict[str, Any]:
    match shape.kind:
        case "text" | "pattern" | "pipeline":
            return {"type": "string", "minLength": int(shape.low), "maxLength": int(shape.high)}
        case "whole" | "number":
            kind = "integer" if shape.kind == "whole" else "number"
            return {"type": kind, "minimum": shape.low, "maximum": shape.high}
        case "choice":
            return {"enum": list(shape.choices)}
        case "list":
            assert shape.item is not None
            return {"type": "array", "maxItems": int(shape.high), "items": _shape_schema(shape.item)}
        case "map":
            assert shape.item is not None
            schema: dict[str, Any] = {"type": "object", "maxProperties": int(shape.high)}
            schema |= {"minProperties": int(shape.low)} if shape.low else {}
            schema |= {} if shape.free_keys else {"propertyNames": {"pattern": f"^{NAME_PATTERN}$"}}
            return schema | {"additionalProperties": _shape_schema(shape.item)}
        case "record":
            return {"$ref": f"#/$defs/{shape.record}"}
    return _FIXED[shape.kind]
