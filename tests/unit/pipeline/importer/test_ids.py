"""Old names as ids, and paths and values as expressions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.ids import NAME_RE
from headrace.pipeline.expressions import compile_expression, evaluate
from headrace.pipeline.importer.ids import Ids, fields, literal, slug


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("analyze_code", "analyze_code"),
        ("my-step", "my-step"),
        ("Data Transformation Example", "data_transformation_example"),
        ("1st step", "step_1st_step"),
        ("été", "t"),
        ("", "step"),
        ("!!!", "step"),
        ("item", "item_x"),
        ("loop", "loop_x"),
        ("x" * 70, "x" * 63),
    ],
)
def test_a_name_stays_as_near_as_it_can(old: str, new: str) -> None:
    """Valid names stay, others lose what is not allowed."""
    assert slug(old, "step") == new


@given(st.lists(st.text(max_size=80), max_size=20))
def test_every_name_gets_an_id_of_its_own(names: list[str]) -> None:
    """Valid, and never twice."""
    ids = Ids()
    made = [ids.make(name) for name in names]
    assert len(set(made)) == len(made)
    assert all(NAME_RE.fullmatch(name) for name in made)


def test_two_names_that_come_out_alike_are_numbered() -> None:
    """In the order of the file."""
    ids = Ids()
    assert [ids.make(name) for name in ("A b", "a_b", "a b")] == ["a_b", "a_b_2", "a_b_3"]


def test_fields_are_written_as_cel_needs_them() -> None:
    """A name as a field, everything else in brackets."""
    assert fields("steps", ("my-step", "output", "a b", 0, "in")) == 'steps["my-step"].output["a b"][0]["in"]'


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)  # fmt: skip
def test_a_value_written_as_an_expression_is_the_value(value: object) -> None:
    """Whatever JSON holds, quotes and escapes included."""
    assert evaluate(compile_expression(literal(value)), {}) == value
