"""Is this document a pipeline? Every problem at once, each at its place. Runs no user code, opens no connection.

Shapes come from the table in `schema`; what names refer to, and the graph, from `graph`. What the table has and this
release cannot execute is refused too, see `pending`.
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
from headrace.pipeline.pending import PENDING
from headrace.pipeline.positions import Path, Place, Positions
from headrace.pipeline.problems import PROBLEMS_MAX, Problem, credential_in, shown
from headrace.pipeline.quantities import INCLUDE_HINT, QuantityError, parse_count, parse_include
from headrace.pipeline.schedules import ScheduleError, check_cron, check_timezone
from headrace.pipeline.schema import AT_LEAST_ONE, EXACTLY_ONE, KINDS, rows
from headrace.pipeline.shapes import NAME_PATTERN, Row, Shape

_CHILD = re.compile(rf"{NAME_PATTERN}(?:@[0-9a-f]{{64}})?")
_EXPRESSION_HINT: Final = "this is fixed when the file is loaded; write a constant"
MODELS_MAX: Final = 10
"""A list of models is tried in order: longer than this nobody waits."""
MODEL_CHARS_MAX: Final = 256
CREDENTIAL_CHARS_MIN: Final = 16
"""No key that anybody issues is shorter."""


class Report:
    """Collects problems of one file, by path into its document."""

    def __init__(self, file: str, positions: Positions) -> None:
        self.file, self.positions = file, positions
        self.found: list[Problem] = []
        self.broken: set[Path] = set()
        """The sections and steps that have a problem, see `part_of`."""

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
        self.broken.add(part_of(path))
        if not self.full:
            self.found.append(Problem(self.file, place.line, place.column, code, text, hint))


def part_of(path: Path) -> Path:
    """The path of the innermost step that a path leads into, or of the section of the document."""
    if path[:1] != ("steps",):
        return path[:1]
    end = 2
    while True:
        below = path[end : end + 4]
        if below[:1] == ("steps",) and len(below) > 1:
            end += 2
        elif below[:1] == ("switch",) and below[2:3] == ("steps",) and len(below) > 3:
            end += 4
        elif below[:1] == ("switch",) and below[2:4] == ("default", "steps") and len(path) > end + 4:
            end += 5
        else:
            return path[:end]


def near(word: str, known: Iterable[str]) -> str:
    """The hint for a word nobody knows: the nearest one, or all of them when they are few."""
    listed = list(known)
    close = difflib.get_close_matches(word, listed, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known are {', '.join(listed)}" if 0 < len(listed) <= 20 else ""


def check_shapes(document: Any, report: Report, *, pending: Mapping[str, str] = PENDING) -> bool:
    """Check keys, types and bounds; parts with a problem are `broken` in the report, the rest can be looked at further.

    Args:
        pending: What is refused although the table has it.

    Returns:
        Whether there are steps to look at.
    """
    if not isinstance(document, dict):
        report.value((), "E1102", f"a pipeline is a map, got {shown(document)}", "begin with `pipeline: <name>`")
        return False
    _Shapes(report, pending).record(document, "pipeline", ())
    return isinstance(document.get("steps"), dict)


_EVALUATED: Final = frozenset({"template", "transform", "condition", "list expression", "json schema", "step or value"})
_SIMPLE: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "flag": ((bool,), "true or false"),
    "condition": ((str, bool), "a condition"),
}


class _Shapes:
    def __init__(self, report: Report, pending: Mapping[str, str]) -> None:
        self.report, self.pending = report, pending
        self.pending_keys = {tuple(entry.partition("=")[0].split(".", 1)) for entry in pending if "." in entry}
        self.checks: dict[str, Callable[[Any, Shape, Path], None]] = {
            **dict.fromkeys(("text", "name", "choice", "pattern", "pipeline"), self._text),
            **dict.fromkeys(("whole", "number"), self._number),
            **dict.fromkeys(("count", "include", "cron", "timezone"), self._written),
            "duration": self._duration,
            "transform": self._transform,
            "steps or one": self._steps,
            "step or value": self._step_or_value,
            "models": self._models,
            "json schema": self._json_schema,
            "list": self._list,
            "map": self._map,
            "record": lambda value, shape, path: self.record(value, shape.record, path),
            "template": lambda value, _, path: self._tree(value, path),
            "list expression": self._items,
            "json": lambda value, _, path: self._no_expressions(value, path, "`vars` are constants"),
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
            if kind and row.kinds and kind not in row.kinds:
                text = f"`{key}` does not go with `{kind}`"
                self.report.key((*path, key), "E1110", text, f"it goes with {_listed(row.kinds, 'and')}")
            if row.needs or row.excludes:
                self._beside(row, value, (*path, key))
            if (where, key) in self.pending_keys:
                self._check_pending(f"{where}.{key}", inner, (*path, key))
            self.shape(inner, row.shape, (*path, key))
        for row in known.values():
            if row.required and row.key not in value:
                self.report.key(path, "E1103", f"`{row.key}` is missing", row.help)
        if where == "retry":
            self._retry_order(value, path)
        if where in EXACTLY_ONE and where != "step":
            self._exactly_one(value, EXACTLY_ONE[where], path)
        if where in AT_LEAST_ONE and not any(key in value for key in AT_LEAST_ONE[where]):
            self.report.key(path, "E1103", f"one of {_listed(AT_LEAST_ONE[where], 'or', '`')} is needed")
        if where == "case" and "when" in value and "steps" not in value:
            self.report.value(path, "E1103", "`steps` is missing", "what happens when the case is chosen")

    def _beside(self, row: Row, value: Mapping[str, Any], path: Path) -> None:
        """What must and must not stand beside a key."""
        if row.needs and not any(key in value for key in row.needs):
            text = f"`{row.key}` needs {_listed(row.needs, 'or', '`')} beside it"
            self.report.key(path, "E1111", text)
        for other in row.excludes:
            if other in value:
                text = f"`{row.key}` and `{other}` exclude each other"
                self.report.key(path, "E1114", text, "put one of them on a group around the other")

    def _check_pending(self, entry: str, value: Any, path: Path) -> None:
        if entry in self.pending:
            self._pending(path, f"`{path[-1]}`", entry)
        elif isinstance(value, str) and f"{entry}={value}" in self.pending:
            self._pending(path, f"`{path[-1]}: {value}`", f"{entry}={value}")

    def _pending(self, path: Path, what: str, entry: str) -> None:
        text = f"{what} cannot be executed by this release yet"
        self.report.key(path, "E1401", text, f"it waits for: {self.pending[entry]}")

    def _retry_order(self, value: dict[str, Any], path: Path) -> None:
        if part_of(path) in self.report.broken or not {"initial", "max"} <= set(value):
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
        if isinstance(value, str):
            if scanner.OPEN in value and shape.kind != "json":
                if not shape.templated and shape.kind not in _EVALUATED:
                    self.report.value(path, "E1302", "no expression is evaluated here", _EXPRESSION_HINT)
                self._secret(value, path)
                return  # the others are looked at with the expressions
            if len(value) >= CREDENTIAL_CHARS_MIN and self._secret(value, path):
                return
        accepted = _SIMPLE.get(shape.kind)
        if accepted is not None:
            types, expected = accepted
            if not isinstance(value, types):
                self._type(path, expected, value)
            return
        check = self.checks.get(shape.kind)
        if check is not None:
            check(value, shape, path)

    def _secret(self, value: str, path: Path) -> bool:
        """Report what looks like a credential, without showing it."""
        found = credential_in(value)
        if found is not None:
            self.report.inside(path, value, found, "E1115", "this looks like a credential", "use `secrets.<NAME>`")
        return found is not None

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

    def _items(self, value: Any, _: Shape, path: Path) -> None:
        if isinstance(value, (str, list)):
            self._tree(value, path)
        else:
            self._type(path, "an expression or a list", value)

    def _written(self, value: Any, shape: Shape, path: Path) -> None:
        """Text with a grammar of its own."""
        try:
            match shape.kind:
                case "count":
                    count = parse_count(value)
                    if not shape.low <= count <= shape.high:
                        text = f"{shown(value)} is outside the bounds"
                        self.report.value(path, "E1104", text, f"{shape.low:g} to {shape.high:g} are allowed")
                case "include":
                    parse_include(value)
                case "cron":
                    check_cron(value)
                case _:
                    check_timezone(value)
        except QuantityError as error:
            self.report.value(path, "E1102", str(error), INCLUDE_HINT if shape.kind == "include" else error.hint)
        except ScheduleError as error:
            self.report.value(path, "E1116", str(error), error.hint)

    def _transform(self, value: Any, _: Shape, path: Path) -> None:
        if isinstance(value, str):
            self.report.value(path, "E1303", "a transform is an expression, this is text", "write `${{ … }}`")
        elif not isinstance(value, dict):
            self._type(path, "an expression or a map of expressions", value)
        elif "from" in value:
            self.record(value, "operations", path)
            if "aggregate" in value and "group_by" not in value:
                for key in ("sort_by", "limit"):
                    if key in value:
                        text = f"`{key}` orders a list, and `aggregate` without `group_by` gives one map"
                        self.report.key((*path, key), "E1114", text)
        else:
            self._tree(value, path)

    def _step_or_value(self, value: Any, _: Shape, path: Path) -> None:
        if isinstance(value, dict):
            for key in value:
                if key != "value":
                    self.report.key((*path, key), "E1101", f"unknown key `{_shown_key(key)}`", "write `{value: …}`")
            if "value" not in value:
                self.report.value(path, "E1103", "`value` is missing", "write a step's id or `{value: …}`")
            self._tree(value, path)
        else:
            self.name(value, path, in_value=True)

    def _models(self, value: Any, shape: Shape, path: Path) -> None:
        if not isinstance(value, list):
            self._text(value, Shape("text", 1, MODEL_CHARS_MAX), path)
            return
        if not 1 <= len(value) <= MODELS_MAX:
            self.report.value(path, "E1104", f"{len(value)} models", f"1 to {MODELS_MAX} are allowed")
        for index, model in enumerate(value):
            self.shape(model, Shape("text", 1, MODEL_CHARS_MAX, templated=shape.templated), (*path, index))

    def _key_expression(self, path: Path) -> None:
        self.report.key(path, "E1302", "no expression is evaluated in a key", "write the key out")

    def _tree(self, value: Any, path: Path) -> None:
        """A value with expressions anywhere inside: these are looked at later, here only what they cannot show."""
        match value:
            case str() if len(value) >= CREDENTIAL_CHARS_MIN:
                self._secret(value, path)
            case dict():
                for key, inner in value.items():
                    if scanner.OPEN in key:
                        self._key_expression((*path, key))
                    self._tree(inner, (*path, key))
            case list():
                for index, inner in enumerate(value):
                    self._tree(inner, (*path, index))

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
        self._no_expressions(value, path, _EXPRESSION_HINT)
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
            elif scanner.OPEN in key:
                self._key_expression((*path, key))
            self.shape(inner, shape.item, (*path, key))

    def _count(self, count: int, what: object, shape: Shape, path: Path) -> None:
        if not shape.low <= count <= shape.high:
            hint = f"{int(shape.low)} to {int(shape.high)} are allowed"
            self.report.value(path, "E1104", f"{count} {what}", hint)

    def _no_expressions(self, value: Any, path: Path, hint: str) -> None:
        match value:
            case str():
                if scanner.OPEN in value:
                    self.report.value(path, "E1302", "no expression is evaluated here", hint)
                self._secret(value, path)
            case dict():
                for key, inner in value.items():
                    self._no_expressions(inner, (*path, key), hint)
            case list():
                for index, inner in enumerate(value):
                    self._no_expressions(inner, (*path, index), hint)


def _listed(words: Iterable[str], last: str, quote: str = "") -> str:
    """`a, b or c`."""
    *most, final = [f"{quote}{word}{quote}" for word in words]
    return f"{', '.join(most)} {last} {final}" if most else final


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
