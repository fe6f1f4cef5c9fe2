"""The CEL library: the environment, the functions declared in it, and results as JSON values.

Only this module imports it. Frozen at 0.1.3: the golden suite in `tests/unit/pipeline/test_evaluation.py` is what
another version or library would have to give.
"""

import datetime
import functools
import math
from collections.abc import Callable
from typing import Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_math, ext_optional

from headrace.contracts import names
from headrace.contracts.errors import ExpressionError
from headrace.pipeline import collecting, functions
from headrace.pipeline.functions import INT_MAX, INT_MIN, kind_of

LOOP_NAMES: Final = ("item", "index", "carry", "iteration")
ROOTS: Final = ("inputs", "vars", "steps", *LOOP_NAMES, "run", "event", "secrets")
"""Every variable an expression may name, as authors know them."""
COMPILED_ROOTS: Final = frozenset(
    {*ROOTS, *(f"{name}_{depth}" for name in LOOP_NAMES for depth in range(1, names.NESTING_MAX + 1))}
)
"""Those that compiled expressions may name: of loops inside loops, one for each depth."""
RESERVED: Final = frozenset(
    {"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop"}
    | {"namespace", "null", "package", "return", "true", "var", "void", "while"}
)
"""Words that are no field names in CEL."""
RESULT_DEPTH_MAX: Final = 200
_UNIQUE_MACROS: Final = ("filter", "map", "all", "exists", "exists_one", "has")
_BUILT_IN: Final = ("size", "matches", "contains", "startsWith", "endsWith", "int", "double", "string", "duration")

_DYN, _TEXT, _INT = cel.Type.DYN, cel.Type.STRING, cel.Type.INT
_LIST, _TEXTS, _MAP = cel.Type.List(_DYN), cel.Type.List(_TEXT), cel.Type.Map(_TEXT, _DYN)
_Row = tuple[str, Callable[..., Any], Any, tuple[Any, ...]]

_FUNCTIONS: Final[tuple[_Row, ...]] = (
    # Lists are declared as DYN, so that a value whose type only the data tells gets our message and not an overload's.
    ("json", functions.parse_json, _DYN, (_TEXT,)),
    ("text", functions.as_text, _TEXT, (_DYN,)),
    ("join", functions.join, _TEXT, (_DYN,)),
    ("join", functions.join, _TEXT, (_DYN, _TEXT)),
    ("split", functions.split, _TEXTS, (_TEXT, _TEXT)),
    ("lower", str.lower, _TEXT, (_TEXT,)),
    ("upper", str.upper, _TEXT, (_TEXT,)),
    ("trim", functions.trim, _TEXT, (_TEXT,)),
    ("substring", functions.substring, _TEXT, (_TEXT, _INT)),
    ("substring", functions.substring, _TEXT, (_TEXT, _INT, _INT)),
    ("replace", functions.replace, _TEXT, (_TEXT, _TEXT, _TEXT)),
    ("sum", functions.total, _DYN, (_DYN,)),
    ("avg", functions.average, cel.Type.DOUBLE, (_DYN,)),
    ("min", functions.least, _DYN, (_DYN,)),
    ("max", functions.greatest, _DYN, (_DYN,)),
    ("sort_by", functions.sort_by, _LIST, (_DYN, _TEXT)),
    ("group_by", functions.group_by, _LIST, (_DYN, _TEXT)),
    ("unique", functions.unique, _LIST, (_DYN,)),
    ("flatten", functions.flatten, _LIST, (_DYN,)),
    ("keys", functions.keys, _TEXTS, (_DYN,)),
    ("values", functions.values, _LIST, (_DYN,)),
    ("merge", functions.merge, _MAP, (_DYN, _DYN)),
    ("sha256", functions.sha256, _TEXT, (_TEXT,)),
    ("_mark", collecting.mark, _LIST, (_DYN, _INT)),
    ("_push", collecting.push, cel.Type.BOOL, (_INT, _DYN)),
    ("_take", collecting.take, _LIST, (cel.Type.BOOL, _INT)),
)
_COALESCE_MAX: Final = 6
FUNCTION_NAMES: Final = tuple(
    dict.fromkeys(
        [*(row[0] for row in _FUNCTIONS if row[0][0] != "_"), "coalesce", "file", "now", *_BUILT_IN, *_UNIQUE_MACROS]
    )
)
"""For "did you mean"."""


def _declared() -> list[Any]:
    """Every function, callable as `f(x)` and as `x.f()`."""
    overloads: dict[str, list[Any]] = {}
    for name, impl, result, parameters in _FUNCTIONS:
        for is_member in (False, True):
            identity = f"hr_{name}_{len(parameters)}{'_member' if is_member else ''}"
            overload = cel.Overload(identity, result, list(parameters), is_member, impl)
            overloads.setdefault(name, []).append(overload)
    overloads["coalesce"] = [
        cel.Overload(f"hr_coalesce_{count}", _DYN, [_DYN] * count, False, functions.coalesce)
        for count in range(2, _COALESCE_MAX + 1)
    ]
    overloads["file"] = [cel.Overload("hr_file", _TEXT, [_TEXT], False, None)]  # the reader comes with each evaluation
    overloads["now"] = [cel.Overload("hr_now", cel.Type.TIMESTAMP, [], False, None)]  # likewise
    return [cel.FunctionDecl(name, found) for name, found in overloads.items()]


@functools.cache
def environment() -> Any:
    """The one environment; made at first use, in 2 ms."""
    variables = {name: _MAP for name in ROOTS if name not in LOOP_NAMES}
    variables |= {"steps": cel.Type.Map(_TEXT, _MAP), "event": _DYN, "secrets": cel.Type.Map(_TEXT, _TEXT)}
    variables |= {name: loop_type(name) for name in COMPILED_ROOTS if name not in variables}
    extensions = [ext_optional.ExtOptional(), ext_math.ExtMath(), cel.CelExtension("headrace", _declared())]
    return cel.NewEnv(variables=variables, extensions=extensions)


def loop_type(name: str) -> Any:
    """The type of a loop's name: `index` and `iteration` count, `item` and `carry` are whatever they are."""
    return _INT if name.partition("_")[0] in ("index", "iteration") else _DYN


def now_function(at: datetime.datetime) -> Any:
    """`now()` for one evaluation: however often it is called, one instant."""
    return cel.Function("now", [], False, lambda: at, cel.Type.TIMESTAMP)


def file_function(read: Callable[[str], str], failures: list[BaseException]) -> Any:
    """`file(path)` for one evaluation. What the reader raises also goes to `failures`: CEL would keep only its text."""

    def reading(path: str) -> str:
        try:
            return read(path)
        except BaseException as error:
            failures.append(error)
            raise

    return cel.Function("file", [_TEXT], False, reading, _TEXT)


def plain(value: Any) -> Any:
    """The JSON value of a result, maps sorted by key.

    Raises:
        ExpressionError: an error value, or something that JSON has no form for.
    """
    result = value.plain_value()
    if isinstance(result, bool):  # conditions are most of what a scheduler evaluates
        return result
    if isinstance(result, str) and value.type() == cel.Type.ERROR:  # an error's plain value is its text
        raise ExpressionError(_error_text(result))
    return _Plain().convert(result, 0)


def _error_text(text: str) -> str:
    """CEL's complaint without its status word, and with what to do where we know it."""
    _, _, message = text.partition(": ")
    message = message or text
    if "No matching overloads found" in message and "double" in message and "int64" in message:
        return f"{message}; integers and doubles don't mix: write `double(x)`"
    return "a condition inside it is not true or false" if "<jump_condition>" in message else message


class _Plain:
    """Converts one result and counts its size on the way."""

    def __init__(self) -> None:
        self.bytes_left = names.VALUE_BYTES_MAX

    def convert(self, value: Any, depth: int) -> Any:
        match value:
            case None | bool():
                return value
            case str():
                self._take(len(value) + 2)
                return value
            case int():
                return self._integer(value)
            case float():
                self._take(8)
                if not math.isfinite(value):
                    msg = "the result is not a finite number"
                    raise ExpressionError(msg)
                return value
            case list():
                self._take(2 + len(value), depth)
                return [self.convert(item, depth + 1) for item in value]
            case dict():
                return self._map(value, depth)
            case datetime.timedelta():
                return _seconds(value)
            case datetime.datetime():
                return value.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
        msg = f"the result holds {kind_of(value)}, which JSON has no form for"
        raise ExpressionError(msg, code="type_mismatch")

    def _take(self, count: int, depth: int = 0) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            msg = f"the result is larger than {names.VALUE_BYTES_MAX} bytes"
            raise ExpressionError(msg, code="expr_cost")
        if depth > RESULT_DEPTH_MAX:
            msg = f"the result is nested deeper than {RESULT_DEPTH_MAX}"
            raise ExpressionError(msg, code="expr_cost")

    def _integer(self, value: int) -> int:
        self._take(8)
        if not INT_MIN <= value <= INT_MAX:
            msg = "the result leaves the 64-bit range"
            raise ExpressionError(msg)
        return value

    def _map(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        self._take(2 + 4 * len(value), depth)
        for key in value:
            if not isinstance(key, str):
                text = f"the result has {kind_of(key)} as a key; keys are text"
                raise ExpressionError(text, code="type_mismatch")
            self._take(len(key))
        return {key: self.convert(value[key], depth + 1) for key in sorted(value)}


def _seconds(value: datetime.timedelta) -> str:
    """A duration as `90s` or, with a fraction, `1.5s`."""
    whole, micros = divmod(value // datetime.timedelta(microseconds=1), 1_000_000)
    if micros == 0:
        return f"{whole}s"
    sign = ""
    if whole < 0:
        sign, whole, micros = "-", -whole - 1, 1_000_000 - micros
    return f"{sign}{whole}.{micros:06d}".rstrip("0") + "s"


def described_functions() -> list[tuple[str, str, str]]:
    """For the reference: how each function beyond CEL's own is called, what it gives, what it does."""
    rows = [
        (f"{name}({', '.join(_type_name(kind) for kind in parameters)})", _type_name(result), impl.__doc__ or "")
        for name, impl, result, parameters in _FUNCTIONS
        if name[0] != "_"
    ]
    rows += [
        ("coalesce(any, any, …)", "any", functions.coalesce.__doc__ or ""),
        ("file(text)", "text", "The text of a file in the workspace or a read root; an executor reads it."),
        ("now()", "timestamp", "The instant of the decision that evaluates it, recorded in the log."),
    ]
    return [(call, gives, " ".join(told.split("\n\n")[0].split())) for call, gives, told in rows]


def _type_name(kind: Any) -> str:
    named = {"DYN": "any", "STRING": "text", "INT": "int", "DOUBLE": "double", "BOOL": "bool"}
    name = str(kind.name())
    return named.get(name, name.partition("<")[0].lower())
