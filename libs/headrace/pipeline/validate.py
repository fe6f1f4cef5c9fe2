"""Is this document a pipeline? Every problem at once, each at its place. Runs no user code, opens no connection.

Shapes come from the table in `schema`; what names refer to, and the graph, from `graph`.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from headrace.contracts.ids import NAME_RE
from headrace.pipeline import json_schemas, scanner
from headrace.pipeline.cel_library import RESERVED
from headrace.pipeline.durations import DurationError, instant_ms, parse_duration_ms
from headrace.pipeline.positions import Path, Place, Positions
from headrace.pipeline.problems import PROBLEMS_MAX, Problem, shown
from headrace.pipeline.schema import EXACTLY_ONE, KINDS, NAME_PATTERN, Shape, rows

_CHILD = re.compile(rf"{NAME_PATTERN}(?:@[0-9a-f]{{64}})?")
_EXPRESSION_HINT: Final = "this is fixed when the file is loaded; write a constant"


class Report:
    """Collects problems of one file, by path into its document."""

    def __init__(self, file: str, positions: Positions) -> None:
        self.file, self.positions = file, positions
        self.found: list[Problem] = []
        self.broken: set[Path] = set()
        """The sections and steps, as paths of one or two, that have a problem."""

    @property
    def full(self) -> bool:
        """No more are wanted."""
        return len(self.found) >= PROBLEMS_MAX

    def value(self, path: Path, code: str, text: str, hint: str = "") -> None:
        """A problem with the value at a path."""
        self._at(path, self.positions.value(path), code, text, hint)

    def key(self, path: Path, code: str, text: str, hint: str = "") -> None:
        """A problem with the key that holds the value at a path."""
        self._at(path, self.positions.key(path), code, text, hint)

    def inside(self, path: Path, source: str, offset: int, code: str, text: str, hint: str = "") -> None:
        """A problem at a character of the text at a path."""
        self._at(path, self.positions.inside(path, source, offset), code, text, hint)

    def _at(self, path: Path, place: Place, code: str, text: str, hint: str) -> None:
        self.broken.add(path[: 2 if path[:1] == ("steps",) else 1])
        if not self.full:
            self.found.append(Problem(self.file, place.line, place.column, code, text, hint))


def near(word: str, known: Iterable[str]) -> str:
    """The hint for a word nobody knows: the nearest one, or all of them when they are few."""
    listed = list(known)
    close = difflib.get_close_matches(word, listed, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known are {', '.join(listed)}" if 0 < len(listed) <= 20 else ""


def check_shapes(document: Any, report: Report) -> dict[str, Any] | None:
    """Check keys, types and bounds.

    Returns:
        The document without the sections and steps that have a problem, so that the rest can be looked at further;
        None when there are no steps to look at.
    """
    if not isinstance(document, dict):
        report.value((), "E1102", f"a pipeline is a map, got {shown(document)}", "begin with `pipeline: <name>`")
        return None
    _Shapes(report).record(document, "pipeline", ())
    steps = document.get("steps")
    if not isinstance(steps, dict):
        return None
    sound = {key: value for key, value in document.items() if (key,) not in report.broken}
    sound["steps"] = {key: value for key, value in steps.items() if ("steps", key) not in report.broken}
    return sound


_EVALUATED: Final = frozenset({"template", "transform", "condition", "list expression", "json schema"})
_SIMPLE: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "flag": ((bool,), "true or false"),
    "condition": ((str, bool), "a condition"),
    "list expression": ((str, list), "an expression or a list"),
}


class _Shapes:
    def __init__(self, report: Report) -> None:
        self.report = report
        self.checks: dict[str, Callable[[Any, Shape, Path], None]] = {
            **dict.fromkeys(("text", "name", "choice", "pattern", "pipeline"), self._text),
            **dict.fromkeys(("whole", "number"), self._number),
            "duration": self._duration,
            "transform": self._transform,
            "steps or one": self._steps,
            "json schema": self._json_schema,
            "list": self._list,
            "map": self._map,
            "record": lambda value, shape, path: self.record(value, shape.record, path),
            "json": lambda value, _, path: self._no_expressions(value, path),
        }

    def record(self, value: Any, where: str, path: Path) -> None:
        """Check a map whose keys are rows of the table."""
        if not isinstance(value, dict):
            self.report.value(
                path, "E1102", f"expected a map, got {shown(value)}", f"keys are {', '.join(rows(where))}"
            )
            return
        known = rows(where)
        kind = self._kind(value, path) if where == "step" else ""
        for key, inner in value.items():
            row = known.get(key)
            if row is None:
                self.report.key((*path, key), "E1101", f"unknown key `{_shown_key(key)}`", near(key, known))
                continue
            if kind and row.kinds and kind not in row.kinds and key not in KINDS:
                text = f"`{key}` does not go with `{kind}`"
                self.report.key((*path, key), "E1110", text, f"it goes with {' and '.join(row.kinds)}")
            if row.needs and row.needs not in value:
                self.report.key((*path, key), "E1111", f"`{key}` needs `{row.needs}` beside it")
            self.shape(inner, row.shape, (*path, key))
        for row in known.values():
            if row.required and row.key not in value:
                self.report.key(path, "E1103", f"`{row.key}` is missing", row.help)
        if where == "retry":
            self._retry_order(value, path)
        if where in EXACTLY_ONE and where != "step":
            self._exactly_one(value, EXACTLY_ONE[where], path)

    def _retry_order(self, value: dict[str, Any], path: Path) -> None:
        if self.report.broken & {path[:1], path[:2]} or not {"initial", "max"} <= set(value):
            return
        if parse_duration_ms(value["max"]) < parse_duration_ms(value["initial"]):
            self.report.value((*path, "max"), "E1104", "`max` is shorter than `initial`", "make it at least as long")

    def _exactly_one(self, value: dict[str, Any], choices: tuple[str, ...], path: Path) -> None:
        found = [key for key in choices if key in value]
        if len(found) != 1:
            text = f"exactly one of {', '.join(f'`{choice}`' for choice in choices)} is needed"
            self.report.key(path, "E1103" if not found else "E1111", text, f"found {', '.join(found) or 'none'}")

    def _kind(self, step: dict[str, Any], path: Path) -> str:
        found = [kind for kind in KINDS if kind in step]
        if len(found) == 1:
            return found[0]
        if not found:
            text = f"step `{path[-1]}` has no kind"
        else:
            text = f"step `{path[-1]}` has {len(found)} kinds: {', '.join(found)}"
        self.report.key(path, "E1109", text, f"a step has exactly one of {', '.join(KINDS)}")
        return ""

    def shape(self, value: Any, shape: Shape, path: Path) -> None:
        """Check one value."""
        if isinstance(value, str) and scanner.OPEN in value:
            if not shape.templated and shape.kind not in _EVALUATED:
                self.report.value(path, "E1302", "no expression is evaluated here", _EXPRESSION_HINT)
            return  # the others are looked at with the expressions
        accepted = _SIMPLE.get(shape.kind)
        if accepted is not None:
            types, expected = accepted
            if not isinstance(value, types):
                self._type(path, expected, value)
            return
        check = self.checks.get(shape.kind)
        if check is not None:
            check(value, shape, path)

    def _type(self, path: Path, expected: str, value: Any) -> None:
        is_scalar = expected in ("text", "a name") and not isinstance(value, (dict, list)) and value is not None
        hint = "quote it" if is_scalar else ""
        self.report.value(path, "E1102", f"expected {expected}, got {shown(value)}", hint)

    def _text(self, value: Any, shape: Shape, path: Path) -> None:
        if shape.kind == "name":
            self.name(value, path, in_value=True)
        elif not isinstance(value, str):
            self._type(path, "text", value)
        elif shape.kind == "choice":
            if value not in shape.choices:
                text = f"{shown(value)} is not allowed"
                self.report.value(path, "E1105", text, f"one of {', '.join(shape.choices)}")
        elif not shape.low <= len(value) <= shape.high:
            text = f"text of {len(value)} characters"
            self.report.value(path, "E1104", text, f"{int(shape.low)} to {int(shape.high)} are allowed")
        elif shape.kind == "pattern":
            if value.startswith("/") or ".." in PurePosixPath(value).parts or not value:
                text = f"{shown(value)} leaves the workspace"
                self.report.value(path, "E1208", text, "write a path below it, such as `out/*.md`")
        elif shape.kind == "pipeline":
            self._child(value, path)

    def _child(self, value: str, path: Path) -> None:
        if value.startswith((".", "/", "~")) or value.endswith((".yaml", ".yml")):
            return  # a file; the bundle looks at it
        if not _CHILD.fullmatch(value):
            hint = "write `./file.yaml`, `name` or `name@<64 hex digits>`"
            self.report.value(path, "E1106", f"{shown(value)} names no pipeline", hint)

    def name(self, value: Any, path: Path, *, in_value: bool) -> None:
        """Check a name, which is the value at a path or its key."""
        at = self.report.value if in_value else self.report.key
        if not isinstance(value, str):
            self._type(path, "a name", value)
        elif not NAME_RE.fullmatch(value):
            at(path, "E1106", f"{shown(value)} is not a name", f"names match {NAME_PATTERN}")
        elif value in RESERVED:
            at(path, "E1107", f"`{value}` is reserved", "it is a word of the expression language")

    def _number(self, value: Any, shape: Shape, path: Path) -> None:
        expected = "a whole number" if shape.kind == "whole" else "a number"
        kinds = (int,) if shape.kind == "whole" else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            self._type(path, expected, value)
        elif not shape.low <= value <= shape.high:
            text = f"{shown(value)} is outside the bounds"
            self.report.value(path, "E1104", text, f"{shape.low:g} to {shape.high:g} are allowed")

    def _duration(self, value: Any, _: Shape, path: Path) -> None:
        try:
            parse_duration_ms(value)
        except DurationError as error:
            self.report.value(path, "E1108", error.text, error.hint)

    def _transform(self, value: Any, _: Shape, path: Path) -> None:
        if isinstance(value, str):
            self.report.value(path, "E1303", "a transform is an expression, this is text", "write `${{ … }}`")
        elif not isinstance(value, dict):
            self._type(path, "an expression or a map of expressions", value)

    def _steps(self, value: Any, _: Shape, path: Path) -> None:
        if isinstance(value, list):
            for index, name in enumerate(value):
                if not isinstance(name, str):
                    self._type((*path, index), "the id of a step", name)
        elif not isinstance(value, str):
            self._type(path, "the id of a step or a list of them", value)

    def _json_schema(self, value: Any, _: Shape, path: Path) -> None:
        if not isinstance(value, dict):
            self._type(path, "a JSON Schema", value)
            return
        try:
            checker = json_schemas.validator(value)
        except json_schemas.SchemaRefusedError as error:
            self.report.value(path, "E1112", f"not a JSON Schema: {error}")
            return
        if "default" in value:
            for below, message in json_schemas.errors(checker, value["default"])[:1]:
                self.report.value((*path, "default", *below), "E1113", f"the default does not fit: {message}")

    def _list(self, value: Any, shape: Shape, path: Path) -> None:
        if not isinstance(value, list):
            self._type(path, "a list", value)
            return
        self._count(len(value), "entries", shape, path)
        assert shape.item is not None
        for index, inner in enumerate(value):
            self.shape(inner, shape.item, (*path, index))

    def _map(self, value: Any, shape: Shape, path: Path) -> None:
        if not isinstance(value, dict):
            self._type(path, "a map", value)
            return
        self._count(len(value), path[-1] if path else "keys", shape, path)
        assert shape.item is not None
        for key, inner in value.items():
            if not shape.free_keys:
                self.name(key, (*path, key), in_value=False)
            self.shape(inner, shape.item, (*path, key))

    def _count(self, count: int, what: object, shape: Shape, path: Path) -> None:
        if not shape.low <= count <= shape.high:
            hint = f"{int(shape.low)} to {int(shape.high)} are allowed"
            self.report.value(path, "E1104", f"{count} {what}", hint)

    def _no_expressions(self, value: Any, path: Path) -> None:
        match value:
            case str() if scanner.OPEN in value:
                self.report.value(path, "E1302", "no expression is evaluated here", "`vars` are constants")
            case dict():
                for key, inner in value.items():
                    self._no_expressions(inner, (*path, key))
            case list():
                for index, inner in enumerate(value):
                    self._no_expressions(inner, (*path, index))


def _shown_key(key: str) -> str:
    return shown(key)[1:-1]


def check_instant(spec: Mapping[str, Any], path: Path, report: Report) -> None:
    """Check the constant instant of a `wait`."""
    until = spec.get("until")
    if isinstance(until, str) and scanner.OPEN not in until:
        try:
            instant_ms(until)
        except DurationError as error:
            report.value((*path, "until"), "E1108", error.text, error.hint)
