"""One expression: compile, see what is read, evaluate. The library itself is behind `cel_library`.

Three facts about the library shape this file. A failed evaluation is a value of type ERROR, not an exception, so the
type is looked at every time. Data is converted whole, so only the paths that an expression names are handed over,
and an expression that *is* a path never enters CEL. Maps iterate in an order that differs by process, and `map` and
`filter` take quadratic time, so these two are rewritten (`collecting`) and maps in results are sorted.

Step ids with `-` are written `steps["my-step"].output`: `-` is subtraction in CEL, and rewriting would guess.
"""

import datetime
import difflib
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import msgspec

from headrace.contracts.errors import ExpressionError
from headrace.pipeline import cel_library, collecting, optionals, scanner
from headrace.pipeline.cel_library import COMPILED_ROOTS, LOOP_NAMES, RESERVED, ROOTS, environment
from headrace.pipeline.expression_faults import Fault, RefusedExpressionError, faults_of, without_code
from headrace.pipeline.functions import as_text, kind_of
from headrace.pipeline.references import Reference, TooManyNodesError, analyse
from headrace.pipeline.skeletons import filled, skeleton_of

SOURCE_CHARS_MAX: Final = 16_384
"""500 nodes of generous names; text belongs in `vars` or around the expression."""
DOUBLINGS_MAX: Final = 4
"""The library's macros `optMap` and `optFlatMap` copy what stands before them: twenty in a row fill any memory."""
STEP_ATTRIBUTES: Final = ("output", "status", "attempts", "error", "usage", "items")
NOW: Final = "now"
"""The dotted name under which the instant of an evaluation is handed over, in milliseconds."""
_DOUBLING = re.compile(r"\bopt(?:Flat)?Map\b")
_PATH = re.compile(r"\s*([a-z]+(?:_\d+)?)((?:\.[A-Za-z_]\w*|\[(?:\"[^\"\\]*\"|'[^'\\]*')\])*)\s*", re.ASCII)
_PATH_STEP = re.compile(r"\.(\w+)|\[[\"']([^\"']*)[\"']\]", re.ASCII)


class Expression(msgspec.Struct, frozen=True):
    """A compiled expression. As a Struct: a file has hundreds, and a frozen dataclass takes ten times as long."""

    source: str
    reads: frozenset[str]
    """Dotted names whose values are needed: `inputs`, `vars`, `run`, `event`, `secrets`, the names of loops as `plan`
    numbers them (`item`, `index_1`, `carry`, …), `now`, and `steps.<id>.<attribute>` with the attributes `output`,
    `status`, `attempts`, `error`, `usage`, `items`. `now` is Unix milliseconds."""
    optional: frozenset[str]
    """Those of `reads` that the expression can do without (`steps.?a.?output`)."""
    uses_files: bool
    """Calls `file(path)`: only an executor can evaluate it."""
    program: Any
    references: tuple[Reference, ...] = ()
    """Every variable with the constant path that follows it, for checks against what is declared."""
    result_type: str = "DYN"
    """CEL's name of the static type; DYN where only the value tells."""
    written: str = ""
    """As its author wrote it, where loops call their names otherwise; for people."""

    @property
    def shown(self) -> str:
        """As its author wrote it, on one line."""
        return " ".join((self.written or self.source).split())

    @property
    def is_path(self) -> bool:
        """It only picks a value out of another, so that it costs the same however long the value is."""
        return self.program.path is not None


FileReader = Callable[[str], str]
_Trie = dict[str, Any]


class _Binding(NamedTuple):
    """A dotted name, and the paths below it that are read (None: all of it)."""

    dotted: str
    required: bool
    step: str
    key: str
    trie: _Trie | None


class _Program(msgspec.Struct, frozen=True):
    bindings: tuple[_Binding, ...]
    path: tuple[str, ...] | None = None
    """Set when the expression is its only binding and these fields: no CEL is needed."""
    compiled: Any = None
    collects: bool = False
    """Makes lists by `map` or `filter`."""
    constant: tuple[Any, ...] = ()
    """Set, with one element, when the expression is a value written out."""
    asks_time: bool = False
    """Calls `now()`."""


def compile_expression(source: str, *, loops: Mapping[str, str] | None = None) -> Expression:
    """Compile one expression (without `${{ }}`). Results are cached.

    Args:
        loops: What the author calls the items, indices, states and iterations of the loops around → what they are
            called compiled, also in `source` and `reads`. None for a source that was compiled before.

    Raises:
        RefusedExpressionError: an ExpressionError; its text has line and column inside the source.
    """
    if loops is None:
        return _compiled(source)
    renames: dict[int, tuple[str, str]] = {}
    if _LOOP_WORD.search(source) or loops:
        _check_loop_words(source, loops)
        for written, compiled in loops.items():
            if written != compiled:
                renames |= {place: (written, compiled) for place in scanner.places_of(source, written)}
    if not renames:
        return _compiled(source)
    edits = [(place, *renames[place]) for place in sorted(renames)]
    try:
        return msgspec.structs.replace(_compiled(scanner.renamed(source, edits)), written=source)
    except RefusedExpressionError as error:
        faults = tuple(replace(fault, offset=scanner.offset_before(edits, fault.offset)) for fault in error.faults)
        raise RefusedExpressionError(source, faults) from None


_SURROGATE = re.compile("[\ud800-\udfff]")
_LOOP_WORD = re.compile(rf"\b(?:{'|'.join(LOOP_NAMES)})(?:_\d+)?\b")


def _check_loop_words(source: str, loops: Mapping[str, str]) -> None:
    """Refuse what only compiled expressions say, and `item` where the loop's item is called otherwise."""
    taken = {compiled: written for written, compiled in loops.items()}
    for word in sorted({match[0] for match in _LOOP_WORD.finditer(source)}):
        if word in loops or (word in LOOP_NAMES and word not in taken):
            continue
        places = scanner.places_of(source, word)
        if places:
            hint = f"it is called `{taken[word]}`" if word == "item" else f"known are {', '.join(ROOTS)}"
            raise RefusedExpressionError(source, (Fault((), places[0], f"`{word}` is not known here", hint),))


@functools.lru_cache(maxsize=4096)  # an entry takes 8 KB; a definition has a few dozen
def _compiled(source: str) -> Expression:
    if len(source) > SOURCE_CHARS_MAX:
        text = f"an expression of {len(source)} characters; at most {SOURCE_CHARS_MAX}"
        raise RefusedExpressionError(source[:80], (Fault((), 0, text),))
    if "opt" in source and len(_DOUBLING.findall(source)) > DOUBLINGS_MAX:
        text = f"more than {DOUBLINGS_MAX} of `optMap` and `optFlatMap`"
        raise RefusedExpressionError(source[:80], (Fault((), 0, text, "each of them doubles the expression"),))
    if not source.isascii() and (lone := _SURROGATE.search(source)) is not None:
        fault = Fault((), lone.start(), "half of a surrogate pair is no character")
        raise RefusedExpressionError(_SURROGATE.sub("\ufffd", source), (fault,))
    return _path_expression(source) or _cel_expression(source)


def constant_expression(value: Any) -> Expression:
    """The expression that is a JSON value written out, such as a literal `foreach` list."""
    source = as_text(value) if not isinstance(value, str) else as_text([value])[1:-1]
    return _expression(source, _Program((), constant=(value,)), (), functions=frozenset(), result_type="DYN")


def _path_expression(source: str) -> Expression | None:
    """The expression when it is nothing but a variable and fields; CEL would say the same, slower."""
    match = _PATH.fullmatch(source)
    if match is None or match[1] not in COMPILED_ROOTS:
        return None
    path = tuple(name or key for name, key in _PATH_STEP.findall(match[2]))
    if RESERVED.intersection(path) or (path and match[1].partition("_")[0] in ("index", "iteration")):
        return None
    reference = Reference(match[1], path, len(path))
    bindings = _bindings(source, [reference])
    rest = path[2:] if match[1] == "steps" else path
    return _expression(source, _Program(bindings, path=rest), (reference,), functions=frozenset(), result_type="DYN")


def _cel_expression(source: str) -> Expression:
    skeleton, fields = skeleton_of(source)
    kind = _kind_of(skeleton)
    if kind is None:
        kind, fields = _kind_or_refusal(source), ()
    references = tuple(
        Reference(root, filled(path, fields), optional_from, open_ended)
        for root, path, optional_from, open_ended in kind.references
    )
    bindings = _bindings(source, references)
    if "optional_type" in kind.result_type:
        fault = Fault((), _start(source), "the result is an optional value", "end it with `.orValue(…)`")
        raise RefusedExpressionError(source, (fault,))
    if kind.asks_time:
        bindings = (*bindings, _Binding(NOW, required=True, step="", key="", trie=None))
    program = _Program(
        bindings,
        compiled=_Compiled(source, collects=kind.makes_list),
        collects=kind.makes_list,
        asks_time=kind.asks_time,
    )
    made = _expression(source, program, references, kind.functions, kind.result_type)
    if kind.makes_list:
        program.compiled.get()  # what is rewritten is compiled now, so that a fault shows at load
    _check_constant(made)
    return made


@dataclass(slots=True, frozen=True)
class _Kind:
    """What compiling tells, the same for all expressions of a skeleton."""

    references: tuple[Reference, ...]
    functions: frozenset[str]
    makes_list: bool
    result_type: str

    @property
    def asks_time(self) -> bool:
        return "now" in self.functions


@functools.lru_cache(maxsize=4096)  # an entry takes 2 KB
def _kind_of(skeleton: str) -> _Kind | None:
    """None when it does not compile: the source itself then says where."""
    try:
        return _kind_or_refusal(skeleton)
    except RefusedExpressionError:
        return None


def _kind_or_refusal(source: str) -> _Kind:
    compiled = _checked(source, source)
    serialized = compiled.serialize()
    if (place := optionals.misplaced(serialized)) is not None:
        fault = Fault((), place, "an optional value stands where a value is needed", "end it with `.orValue(…)`")
        raise RefusedExpressionError(source, (fault,))
    try:
        analysis = analyse(serialized)
    except TooManyNodesError as error:
        text = f"the expression is too large: {error}"
        fault = Fault((), _start(source), text, "do it in steps, or in a tool")
        raise RefusedExpressionError(source, (fault,)) from error
    # What is no root of ours names a type.
    references = tuple(found for found in analysis.references if found.root in COMPILED_ROOTS)
    return _Kind(references, frozenset(analysis.functions), analysis.makes_list, compiled.return_type().name())


class _Compiled:
    """CEL's program of an expression whose skeleton is known to compile, made when it is first evaluated."""

    __slots__ = ("_collects", "_program", "_source")

    def __init__(self, source: str, *, collects: bool) -> None:
        self._source, self._collects = source, collects
        self._program: Any = None

    def get(self) -> Any:
        """The program. Raises `RefusedExpressionError`."""
        if self._program is None:
            source = scanner.with_collected_lists(self._source) if self._collects else self._source
            self._program = _checked(source, self._source)
        return self._program


def _expression(
    source: str, program: _Program, references: tuple[Reference, ...], functions: frozenset[str], result_type: str
) -> Expression:
    return Expression(
        source=source,
        reads=frozenset(binding.dotted for binding in program.bindings),
        optional=frozenset(binding.dotted for binding in program.bindings if not binding.required),
        uses_files="file" in functions,
        program=program,
        references=references,
        result_type=result_type,
    )


def _check_constant(expression: Expression) -> None:
    """What reads nothing has one value for ever: when that is an error, it is one now."""
    if expression.references or expression.uses_files or expression.program.asks_time:
        return
    try:
        evaluate(expression, {})
    except ExpressionError as error:
        text = f"this never has a value: {str(error).removeprefix(f'{_short(expression)}: ')}"
        raise RefusedExpressionError(expression.source, (Fault((), _start(expression.source), text),)) from error


def _start(source: str) -> int:
    """Where an expression begins, blanks left out."""
    return len(source) - len(source.lstrip())


def _checked(source: str, shown: str) -> Any:
    """CEL's compiled form, or the refusal with each of its complaints at its place."""
    try:
        return environment().compile(source)
    except RuntimeError as error:
        raise RefusedExpressionError(shown, faults_of(str(error), shown)) from None


def _bindings(source: str, references: Iterable[Reference]) -> tuple[_Binding, ...]:
    """What must be handed over, one entry a dotted name, in order of appearance.

    Raises:
        RefusedExpressionError: `steps` is used otherwise than `steps.<id>.<attribute>`.
    """
    grouped: dict[tuple[str, ...], list[Reference]] = {}
    for reference in references:
        if reference.root == "steps":
            _check_step_reference(source, reference)
            grouped.setdefault(("steps", *reference.path[:2]), []).append(reference)
        else:
            grouped.setdefault((reference.root,), []).append(reference)
    made = []
    for name, found in grouped.items():
        is_step = len(name) == 3
        below = [reference.path[2:] if is_step else reference.path for reference in found]
        made.append(
            _Binding(
                dotted=".".join(name),
                required=not is_step or any(reference.optional_from >= 2 for reference in found),
                step=name[1] if is_step else "",
                key=name[-1],
                trie=_trie(below),
            )
        )
    return tuple(made)


def _check_step_reference(source: str, reference: Reference) -> None:
    offset = max(source.find("steps"), 0)
    if not reference.path:
        what = "`steps[…]` with a computed id" if reference.open_ended else "`steps` alone"
        hint = "name one step: `steps.<id>.output`"
        raise RefusedExpressionError(source, (Fault((), offset, f"{what} cannot be checked", hint),))
    if len(reference.path) == 1:
        text = f"`steps.{reference.path[0]}` needs an attribute"
        raise RefusedExpressionError(source, (Fault((), offset, text, f"one of {', '.join(STEP_ATTRIBUTES)}"),))
    attribute = reference.path[1]
    if attribute not in STEP_ATTRIBUTES:
        near = difflib.get_close_matches(attribute, STEP_ATTRIBUTES, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(STEP_ATTRIBUTES)}"
        found = re.search(rf"\b{re.escape(attribute)}\b", source[offset:])
        place = offset + found.start() if found else offset
        raise RefusedExpressionError(source, (Fault((), place, f"a step has no `{attribute}`", hint),))


def _trie(paths: list[tuple[str, ...]]) -> _Trie | None:
    """The paths as a tree; None where one of them ends, because all below is then wanted."""
    if any(not path for path in paths):
        return None
    heads: dict[str, list[tuple[str, ...]]] = {}
    for path in paths:
        heads.setdefault(path[0], []).append(path[1:])
    return {head: _trie(rest) for head, rest in heads.items()}


def evaluate(expression: Expression, values: Mapping[str, Any], *, files: FileReader | None = None) -> Any:
    """The expression's JSON value.

    Args:
        values: Dotted name (as in `reads`) → JSON value. A missing optional one is absent.
        files: How `file(path)` reads; None where files may not be read. What it raises is raised here.

    Raises:
        ExpressionError: no value: `expr_eval`, `expr_cost`, `type_mismatch`.
    """
    program: _Program = expression.program
    if program.constant:
        return program.constant[0]
    if program.path is not None:
        return _at_path(expression, program.bindings[0], program.path, values)
    data = _scope(expression, program.bindings, values)
    if program.collects:
        collecting.begin()
    if expression.uses_files or program.asks_time:
        return _evaluate_with_functions(expression, data, files, values.get(NOW))
    try:
        return cel_library.plain(program.compiled.get().eval(data=data))
    except ExpressionError as error:
        raise _placed(expression, error) from error
    except (RuntimeError, TypeError, SystemError) as error:
        raise _run_time_error(expression, str(error)) from error


def _placed(expression: Expression, error: ExpressionError) -> ExpressionError:
    code = "expr_cost" if collecting.OVER_BUDGET in str(error) else error.own_code
    return ExpressionError(f"{_short(expression)}: {error}", code=code)


_EPOCH: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)


def _evaluate_with_functions(
    expression: Expression, data: dict[str, Any], files: FileReader | None, now_ms: int | None
) -> Any:
    functions: list[Any] = []
    failures: list[BaseException] = []
    if expression.uses_files:
        if files is None:
            msg = f"{_short(expression)}: file() can only be read by an executor"
            raise ExpressionError(msg)
        functions.append(cel_library.file_function(files, failures))
    if now_ms is not None:
        functions.append(cel_library.now_function(_EPOCH + datetime.timedelta(milliseconds=now_ms)))
    try:
        return cel_library.plain(expression.program.compiled.get().eval(data=data, functions=functions))
    except (ExpressionError, RuntimeError, TypeError, SystemError) as error:
        if failures:
            raise failures[0] from None  # the reader's own error has the code; CEL kept only its text
        if isinstance(error, ExpressionError):
            raise _placed(expression, error) from error
        raise _run_time_error(expression, str(error)) from error


def _run_time_error(expression: Expression, message: str) -> ExpressionError:
    if "budget exceeded" in message:
        text = "more than 9,999 steps over lists; use a `transform` over items, or a tool"
        return ExpressionError(f"{_short(expression)}: {text}", code="expr_cost")
    if "convert function return value" in message or "exception set" in message:
        message = "the result holds an optional value; end it with `.orValue(…)`"
    return ExpressionError(f"{_short(expression)}: {without_code(message)}")


def _short(expression: Expression) -> str:
    flat = " ".join(expression.source.split())
    return f"`{flat if len(flat) <= 80 else flat[:79] + '…'}`"


def _at_path(expression: Expression, binding: _Binding, path: tuple[str, ...], values: Mapping[str, Any]) -> Any:
    if binding.dotted not in values:
        msg = f"{_short(expression)}: `{binding.dotted}` has no value here"
        raise ExpressionError(msg)
    value = values[binding.dotted]
    for name in path:
        if not isinstance(value, dict):
            text = f"`{name}` looked for in {kind_of(value)}, which has no fields"
            msg = f"{_short(expression)}: {text}"
            raise ExpressionError(msg)
        if name not in value:
            msg = f"{_short(expression)}: there is no `{name}`{_present(value)}"
            raise ExpressionError(msg)
        value = value[name]
    return value


def _present(value: dict[str, Any]) -> str:
    names = sorted(value)[:10]
    return f"; there are {', '.join(names)}" if names else "; the map is empty"


def _scope(expression: Expression, bindings: tuple[_Binding, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    for binding in bindings:
        if binding.key == "":
            if binding.dotted not in values:
                msg = f"{_short(expression)}: `{binding.dotted}` has no value here"
                raise ExpressionError(msg)
            continue  # a function's answer, not a variable
        step = binding.step
        target = scope.setdefault("steps", {}).setdefault(step, {}) if step else scope
        dotted = binding.dotted
        if dotted in values:
            value, trie = values[dotted], binding.trie
            target[binding.key] = value if trie is None or not isinstance(value, dict) else _pruned(value, trie)
        elif binding.required:
            msg = f"{_short(expression)}: `{dotted}` has no value here"
            raise ExpressionError(msg)
    return scope


def _pruned(value: dict[str, Any], trie: _Trie) -> dict[str, Any]:
    kept = {}
    for name, below in trie.items():
        if name in value:
            inner = value[name]
            kept[name] = inner if below is None or not isinstance(inner, dict) else _pruned(inner, below)
    return kept


def evaluate_condition(expression: Expression, values: Mapping[str, Any], *, files: FileReader | None = None) -> bool:
    """As `evaluate`, for conditions: a value that is not a boolean is `type_mismatch`."""
    value = evaluate(expression, values, files=files)
    if not isinstance(value, bool):
        text = f"{_short(expression)}: a condition is true or false, got {kind_of(value)}"
        raise ExpressionError(text, code="type_mismatch")
    return value
