"""What an expression reads, from the library's own syntax tree."""

import pytest

from headrace.pipeline.cel_library import environment
from headrace.pipeline.references import NODES_MAX, Analysis, Reference, TooManyNodesError, analyse


def analysis(source: str) -> Analysis:
    return analyse(environment().compile(source).serialize())


@pytest.mark.parametrize(
    ("source", "references"),
    [
        ("inputs.a.b", [Reference("inputs", ("a", "b"), 2)]),
        ('inputs["a"].b', [Reference("inputs", ("a", "b"), 2)]),
        ("inputs.?a.b.orValue(1)", [Reference("inputs", ("a", "b"), 0)]),
        ("has(inputs.a.b)", [Reference("inputs", ("a", "b"), 1)]),
        ("inputs.a[index].b", [Reference("index", (), 0), Reference("inputs", ("a",), 1, open_ended=True)]),
        ("inputs.a[0].b", [Reference("inputs", ("a",), 1, open_ended=True)]),
        ("[item].map(x, x.a + index)", [Reference("item", (), 0), Reference("index", (), 0)]),
        ("[1].map(item, item)", []),
        ("{'k': vars.a}", [Reference("vars", ("a",), 1)]),
        ("inputs.a.size() + size(inputs.b)", [Reference("inputs", ("a",), 1), Reference("inputs", ("b",), 1)]),
    ],
)
def test_variables_and_the_fields_that_follow(source: str, references: list[Reference]) -> None:
    """Constant fields only; variables of comprehensions are inside."""
    assert analysis(source).references == references


def test_functions_and_lists_made_are_known() -> None:
    """`file` decides where an expression is evaluated, `map` how."""
    found = analysis("inputs.a.map(x, file(x))")
    assert "file" in found.functions
    assert found.makes_list
    assert not analysis("inputs.a.all(x, x > 1)").makes_list


def test_growth_counts_copies_of_the_same_part() -> None:
    """Different fields of an item are parts of it; the same one twice is a copy."""
    assert analysis("inputs.a.map(x, x.a + x.b)").growth == 1
    assert analysis("inputs.a.map(x, x.a + x.a)").growth == 2
    assert analysis("inputs.a.map(x, [x, x, x]).map(y, y + y)").growth == 6
    assert analysis("inputs.a.filter(x, x.a > 1 && x.a < 5 && x.a != 3)").growth == 1


def test_a_program_is_refused() -> None:
    """Five hundred nodes are a long expression."""
    wide = "[" + ", ".join(["inputs.a"] * (NODES_MAX // 2 + 1)) + "]"
    with pytest.raises(TooManyNodesError):
        analysis(wide)
