"""Hypothesis strategies for every type of the contracts, made from the types themselves."""

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as mi

from headrace.contracts.codec import encode_value

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
"""No lone surrogates: they are no Unicode text and are refused where values are made (`runtime/values.py`)."""
INTS = st.integers(min_value=-(2**63), max_value=2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | INTS | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
RAW = JSON.map(lambda value: msgspec.Raw(encode_value(value)))


def of(kind: type) -> st.SearchStrategy[Any]:
    """Any instance of a struct."""
    return _of(mi.type_info(kind))


_SIMPLE: dict[type, st.SearchStrategy[Any]] = {
    mi.AnyType: JSON,
    mi.NoneType: st.none(),
    mi.BoolType: st.booleans(),
    mi.IntType: INTS,
    mi.FloatType: FLOATS,
    mi.StrType: TEXT,
    mi.BytesType: st.binary(max_size=12),
    mi.RawType: RAW,
}


def _of(info: mi.Type) -> st.SearchStrategy[Any]:
    if type(info) in _SIMPLE:
        return _SIMPLE[type(info)]
    match info:
        case mi.UnionType(types=types):
            return st.one_of([_of(one) for one in types])
        case mi.DictType(value_type=value):
            return st.dictionaries(TEXT, _of(value), max_size=3)
        case mi.VarTupleType(item_type=item):
            return st.lists(_of(item), max_size=3).map(tuple)
        case mi.TupleType(item_types=items):
            return st.tuples(*[_of(one) for one in items])
        case mi.StructType():
            return _struct(info)
        case mi.LiteralType(values=values):
            return st.sampled_from(sorted(values, key=str))
    raise AssertionError(info)


def _struct(info: mi.StructType) -> st.SearchStrategy[Any]:
    required = {field.name: _of(field.type) for field in info.fields if field.required}
    optional = {field.name: _of(field.type) for field in info.fields if not field.required}
    build: Callable[[dict[str, Any]], Any] = lambda fields: info.cls(**fields)  # noqa: E731 - a typed lambda
    return st.fixed_dictionaries(required, optional=optional).map(build)
