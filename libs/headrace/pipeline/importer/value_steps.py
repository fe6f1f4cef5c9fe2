"""Steps that make values without asking anybody: `set_variable`, `test_echo`, `data_transform`."""

import re
from typing import Any, Final

from headrace.pipeline.importer.formula import FormulaError, parse
from headrace.pipeline.importer.ids import field, fields, literal, slug
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.outputs import GroupedOutput, Output, Read, ValueOutput
from headrace.pipeline.importer.sources import list_source
from headrace.pipeline.importer.unit import Made, Step, report_left

_AGGREGATES: Final = {
    "sum": "sum({0})", "average": "avg({0})", "avg": "avg({0})", "count": "size({0})", "max": "max({0})",
    "min": "min({0})", "first": "{0}[0]", "last": "{0}[size({0}) - 1]", "unique": "unique({0})",
}  # fmt: skip


def set_variable(step: Step) -> Made:
    """`set_variable`: a map of values, which later steps read by the variables' names."""
    variables = step.old.section("variables")
    values: dict[str, tuple[Any, tuple[str | int, ...]]] = {}
    if variables is not None:
        values = {key: (value, variables.at(key)) for key, value in variables.value.items()}
    if "variable" in step.old:
        name = step.old.required("variable")
        values[name] = (step.old.take("value"), step.old.at("value"))
        step.note("N1564", "variable", "`variable` and `value` set a variable", "no effect")
    if not values:
        step.refuse("E1502", "", "`variables` is missing", "a warning, and no effect")
    scope = step.old.text("scope")
    if scope not in (None, "global", "session", "loop"):
        now = f"scope `{scope}` is no scope; the variable is known to all steps after this one"
        step.note("W1520", "scope", now, "acted as `global`")
    body: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, (value, path) in values.items():
        key = slug(name, "variable")
        body[key] = step.templates.value(value, path, at=step.at)
        names[name] = field(f"{step.expression}.output", key)
        if isinstance(value, str) and "{{" in value:
            step.notes.add("N1561", path, "the value keeps its type", "a number became text", at=step.at)
    output = ValueOutput(f"{step.expression}.output", frozenset(body), frozenset({"result", "variables"}))
    return Made({step.id: {"transform": body}}, output, variables=names)


def test_echo(step: Step) -> Made:
    """`test_echo`: the value itself."""
    if step.old.flag("fail"):
        step.old.taken.add("error_message")
        now = "`fail` is dropped: a step that always fails has no counterpart"
        step.note("W1520", "fail", now, "the step failed, for tests")
    value = step.old.take("value")
    path = step.old.at("value")
    if isinstance(value, dict):
        tree: Any = step.templates.value(value, path, at=step.at)
    elif isinstance(value, str) and not all(plain for plain, _ in step.templates.parts(value, path, step.at)):
        tree = step.templates.text(value, path, at=step.at)
    else:
        tree = f"${{{{ {step.templates.cel(value, path, at=step.at)} }}}}"
    return Made({step.id: {"transform": tree}}, ValueOutput(f"{step.expression}.output"))


def data_transform(step: Step) -> Made:
    """`data_transform`: operations over a list, as steps that each do what one pass can."""
    operations = step.old.sections("operations") or []
    if not operations:
        step.refuse("E1502", "", "`operations` is missing", "refused as well")
    source = list_source(step, "input_source")
    lazy = step.old.section("lazy")
    if lazy is not None:
        step.note(
            "N1559", "lazy", "`lazy` is dropped: lists of any size give the same result", "other rules for large lists"
        )
    passes = _Passes(step, source)
    for operation in operations:
        passes.add(operation)
        report_left(step.notes, operation, {}, "an operation", at=step.at)
    made = passes.made(step.old.text("output_format"))
    made.output_field = step.old.text("output_field") or ""
    return made


class _Passes:
    """The operations so far: parts that one `transform` over items does, and expressions for the rest."""

    def __init__(self, step: Step, source: str) -> None:
        self.step, self.source = step, source
        self.steps: list[dict[str, Any]] = []
        self.open: dict[str, Any] = {}
        self.grouped = False
        self.ids = [step.id]

    def add(self, operation: Section) -> None:
        """One more operation."""
        kind = operation.required("operation")
        if self.grouped and kind != "sort":
            text = f"`{kind[:60]}` after `group_by` has no counterpart"
            self.step.notes.refuse("E1510", operation.at("operation"), text, "worked on a map of lists")
        match kind:
            case "filter":
                self._filter(operation)
            case "map":
                self._map(operation)
            case "sort":
                self._sort(operation)
            case "group_by":
                self._group_by(operation)
            case "join":
                self._join(operation)
            case "aggregate":
                self._aggregate(operation)
            case "unique" | "flatten":
                self.step.notes.add("N1559", operation.path, f"`{kind}` works", "documented, but without effect")
                operation.taken.add("field")
                self._expression(f"{kind}({self._whole()})")
            case _:
                known = "filter, map, sort, group_by, join, aggregate, unique, flatten"
                text = f"no operation `{kind[:60]}`; there are {known}"
                self.step.notes.refuse("E1510", operation.at("operation"), text, "an error, or without effect")

    def _filter(self, operation: Section) -> None:
        condition = operation.required("condition")
        if "field" in operation:
            operation.taken.add("field")
        where = operation.at("condition")
        try:
            formula = parse(condition, lambda path: Read(fields("item", path)), ())
        except FormulaError as error:
            text = f"{condition[:60]}: {error}"
            self.step.notes.refuse("E1509", where, text, "nothing matched, or with more than 1,000 items everything")
        test = formula.cel.condition()
        now = f"`{test.text}`: the same for lists of any size"
        if re.search(r"==\s*(true|false)|-\d", condition):
            before = "`== false` never matched, negative numbers were text; over 1,000 items another rule"
        else:
            before = "over 1,000 items another rule, which kept what it could not parse"
        self.step.notes.add("N1559", where, now, before, at=self.step.at)
        self._open("where")
        known = self.open.get("where")
        self.open["where"] = test.text if known is None else f"{known} && {test.within(3)}"

    def _map(self, operation: Section) -> None:
        name = operation.required("field")
        mapping, function = operation.section("mapping"), operation.text("expression")
        if "." in name:
            text = f"`{name[:60]}`: a `map` of a nested field has no counterpart; write a `transform`"
            self.step.notes.refuse("E1510", operation.at("field"), text, "the nested field was changed")
        value = fields("item", (name,))
        if mapping is not None:
            table = {str(key): entry for key, entry in mapping.value.items()}
            new = f"{literal(table)}[?text({value})].orValue({value})"
        elif function in ("uppercase", "lowercase"):
            new = f"{function[:5]}({value})"
        else:
            text = "a `map` needs `mapping`, or `expression: uppercase` or `lowercase`"
            self.step.notes.refuse("E1510", operation.path, text, "without effect")
        self._open("select")
        self.open["select"] = f"${{{{ merge(item, {{{literal(name)}: {new}}}) }}}}"

    def _sort(self, operation: Section) -> None:
        name = operation.required("field")
        order = operation.text("order") or "asc"
        self._open("sort_by")
        self.open["sort_by"] = f"-{name}" if order.startswith("desc") else name

    def _group_by(self, operation: Section) -> None:
        name = operation.required("field")
        self._open("group_by")
        self.open["group_by"] = name
        self.grouped = True
        now = "the result is a list of `{key, items}`"
        self.step.notes.add("N1559", operation.path, now, "a map of lists by key", at=self.step.at)

    def _join(self, operation: Section) -> None:
        left = fields("row", tuple(operation.required("left_field").split(".")))
        right = fields("other", tuple((operation.text("join_key") or "id").split(".")))
        source = list_source(self.step, "right_source", section=operation)
        found = f"{source}.filter(other, {right} == {left})"
        now = "each row with the first that matches; of more than 9,999 rows the step fails"
        self.step.notes.add("N1559", operation.path, now, "the same, of any number", at=self.step.at)
        joined = f"size({found}) > 0 ? merge(row, {found}[0]) : row"
        self._expression(f"{self._whole()}.map(row, {joined})")

    def _aggregate(self, operation: Section) -> None:
        function = operation.required("function")
        made = _AGGREGATES.get(function)
        if made is None:
            text = f"no function `{function[:60]}`; there are {', '.join(_AGGREGATES)}"
            self.step.notes.refuse("E1510", operation.at("function"), text, "documented, but without effect")
        name = operation.text("field")
        if function == "count":
            before = "`1000`, or with more items `[1001]`"
            self.step.notes.add("N1559", operation.at("function"), "`count` is a number", before, at=self.step.at)
            listed = self._whole()
        else:
            rows = self._whole()
            listed = rows if name is None else f"{rows}.map(row, {fields('row', tuple(name.split('.')))})"
        self._expression(made.format(listed))

    # --- passes ---

    def _open(self, key: str) -> None:
        """Make room for a part: parts of one pass are done in a fixed order."""
        order = ("from", "where", "select", "group_by", "sort_by")
        if self.open and any(order.index(known) > order.index(key) for known in self.open):
            self._close()
        if key in self.open and key != "where":
            self._close()
        if not self.open:
            self.open = {"from": self._whole()}

    def _whole(self) -> str:
        """The list as it is after what came so far."""
        if self.open:
            self._close()
        return self.source

    def _close(self) -> None:
        self.steps.append({"transform": self.open})
        self.open = {}
        made = self.step.scope.ids.make(f"{self.step.id}_{len(self.steps)}")
        self.ids.insert(-1, made)
        self.source = f"{field('steps', made)}.output"

    def _expression(self, cel: str) -> None:
        self.source = cel

    def made(self, output_format: str | None) -> Made:
        """The steps; the last one has the old step's id."""
        if not self.open:
            self.steps.append({"transform": f"${{{{ {self.source} }}}}"})
        else:
            self.steps.append({"transform": self.open})
        cel = f"{self.step.expression}.output"
        made = dict(zip(self.ids, self.steps, strict=True))
        if output_format not in (None, "json"):
            self._format(output_format, made)
        for body in made.values():
            if isinstance(body["transform"], dict) and "from" in body["transform"]:
                body["transform"]["from"] = f"${{{{ {body['transform']['from']} }}}}"
        output: Output = GroupedOutput(cel) if self.grouped and output_format in (None, "json") else ValueOutput(cel)
        return Made(made, output)

    def _format(self, output_format: str, made: dict[str, dict[str, Any]]) -> None:
        wrap = {"string": "text({0})", "count": "size({0})"}.get(output_format)
        if wrap is None:
            now = f"no output format `{output_format[:60]}`; there are json, string, count"
            self.step.refuse("E1510", "output_format", now, "as `json`")
        inner = made.pop(self.step.id)
        listed = self.step.scope.ids.make(f"{self.step.id}_all")
        made[listed] = inner
        made[self.step.id] = {"transform": f"${{{{ {wrap.format(field('steps', listed) + '.output')} }}}}"}
