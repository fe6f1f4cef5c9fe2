"""Operations over the items of a list: what a `transform` with `from` does. Linear but for the sort.

The order is fixed, whatever the order in the file: join, where, select, unique, group_by with aggregate, sort_by,
limit. Paths are dotted (`metrics.lines`); an empty path is the item itself.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from headrace.contracts.codec import encode_value
from headrace.contracts.errors import ExpressionError
from headrace.pipeline import functions
from headrace.pipeline.evaluation import Expression, FileReader, evaluate_condition
from headrace.pipeline.functions import at_path, kind_of

MARK: Final = "${{operations}}"
"""The key by which a stored template tells operations from a map; no author can write it, keys hold no expressions."""
PER_ITEM: Final = ("where", "select")
JOINED: Final = "joined"
Renderer = Callable[[Any, Mapping[str, Any], FileReader | None], Any]

_AGGREGATES: Final[Mapping[str, Callable[[list[Any]], Any]]] = {
    "count": lambda values: sum(value is not None for value in values),
    "sum": functions.total,
    "avg": functions.average,
    "min": functions.least,
    "max": functions.greatest,
}


@dataclass(slots=True, frozen=True)
class Operations:
    """Compiled. `source_list`, `select`, `limit` and `partners` are nodes of a template, for the caller's renderer."""

    source_list: Any
    item_name: str
    index_name: str
    partners: Any = None
    on: str = ""
    joined: str = JOINED
    keeps_lonely: bool = False
    where: Expression | None = None
    select: Any = None
    has_select: bool = False
    unique: str | None = None
    group_by: str | None = None
    aggregate: Mapping[str, tuple[str, str]] | None = None
    """Name → (function, path)."""
    sort_by: str | None = None
    limit: Any = None
    has_limit: bool = False


def run(operations: Operations, values: Mapping[str, Any], files: FileReader | None, render: Renderer) -> Any:
    """The list, or the map of an `aggregate` without `group_by`.

    Raises:
        ExpressionError: no list, an item without the path, an expression without a value.
    """
    try:
        items = _list(render(operations.source_list, values, files), "from")
        if operations.partners is not None:
            items = _join(operations, items, _list(render(operations.partners, values, files), "join"))
        items = list(_chosen(operations, items, values, files, render))
        if operations.unique is not None:
            items = _unique(items, operations.unique)
        return _ordered(operations, _grouped(operations, items), values, files, render)
    except ValueError as error:
        msg = f"transform: {error}"
        raise ExpressionError(msg) from error


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        msg = f"transform: `{what}` takes a list, got {kind_of(value)}"
        raise ExpressionError(msg, code="type_mismatch")
    return value


def _join(operations: Operations, items: list[Any], others: list[Any]) -> list[Any]:
    by_key: dict[bytes, list[Any]] = {}
    for other in others:
        by_key.setdefault(encode_value(at_path(other, operations.on, "join")), []).append(other)
    made = []
    for item in items:
        partners = by_key.get(encode_value(at_path(item, operations.on, "join")), [])
        if partners or operations.keeps_lonely:
            made.append({**item, operations.joined: partners})  # at_path has seen that it is a map
    return made


def _chosen(
    operations: Operations,
    items: list[Any],
    values: Mapping[str, Any],
    files: FileReader | None,
    render: Renderer,
) -> Iterator[Any]:
    if operations.where is None and not operations.has_select:
        yield from items
        return
    scope = dict(values)
    for index, item in enumerate(items):
        scope[operations.item_name], scope[operations.index_name] = item, index
        if operations.where is None or evaluate_condition(operations.where, scope, files=files):
            yield render(operations.select, scope, files) if operations.has_select else item


def _unique(items: list[Any], path: str) -> list[Any]:
    first: dict[bytes, Any] = {}
    for item in items:
        first.setdefault(encode_value(at_path(item, path, "unique")), item)
    return list(first.values())


def _grouped(operations: Operations, items: list[Any]) -> Any:
    if operations.group_by is None:
        return items if operations.aggregate is None else _aggregate(operations.aggregate, items)
    groups = functions.group_by(items, operations.group_by)
    if operations.aggregate is None:
        return groups
    return [{"key": group["key"], **_aggregate(operations.aggregate, group["items"])} for group in groups]


def _aggregate(wanted: Mapping[str, tuple[str, str]], items: list[Any]) -> dict[str, Any]:
    return {
        name: _AGGREGATES[function]([at_path(item, path, function) for item in items])
        for name, (function, path) in wanted.items()
    }


def _ordered(
    operations: Operations, made: Any, values: Mapping[str, Any], files: FileReader | None, render: Renderer
) -> Any:
    if operations.sort_by is not None:
        made = functions.sort_by(made, operations.sort_by)
    if operations.has_limit:
        limit = render(operations.limit, values, files)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
            msg = f"transform: `limit` takes a whole number from 0, got {kind_of(limit)}"
            raise ExpressionError(msg, code="type_mismatch")
        made = made[:limit]
    return made
