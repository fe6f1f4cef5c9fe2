"""Templates: expressions inside JSON trees, rendered once, compiled again from their source."""

from typing import Any

import pytest

from headrace.pipeline.expression_faults import RefusedExpressionError
from headrace.pipeline.expressions import compile_expression, compile_template, render

SCOPE: dict[str, Any] = {"inputs": {"a": 1, "b": [1, 2, {"c": 2.5}], "n": None, "t": "Grüße 😀", "f": 2.5}}


def reading(path: str) -> str:
    return f"<{path}>"


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ("plain", "plain"),
        ("${{ inputs.b }}", [1, 2, {"c": 2.5}]),
        ("${{inputs.a}}", 1),
        ("|${{ inputs.a }}|${{ inputs.b }}|${{ inputs.n }}|${{ inputs.t }}|", '|1|[1,2,{"c":2.5}]|null|Grüße 😀|'),
        ("\n  ${{ inputs.a }}\n", 1),
        ("$${{ inputs.a }} ${{ inputs.a }}", "${{ inputs.a }} 1"),
        ("cost $5 ${{ inputs.a }}", "cost $5 1"),
        ("${{ {'a': {'b': inputs.a}} }}", {"a": {"b": 1}}),
        ("${{ {'a': {'b': inputs.a}}}}", {"a": {"b": 1}}),
        ("${{ \"}}\" + '}}' }}", "}}}}"),
        ("${{ inputs.a // }} a comment\n }}", 1),
        ({"k": ["${{ inputs.a }}", 1, None, {"d": "x${{ inputs.f }}"}]}, {"k": [1, 1, None, {"d": "x2.5"}]}),
        ({"${{ key }}": 1}, {"${{ key }}": 1}),
        ({"k": "$${{ a }}", "l": ["$${{ b }}", 1]}, {"k": "${{ a }}", "l": ["${{ b }}", 1]}),
        ({"k": {"l": "$${{ a }}"}, "m": "${{ inputs.a }}"}, {"k": {"l": "${{ a }}"}, "m": 1}),
        (5, 5),
        ([], []),
    ],
)
def test_otp_n5_a_template_keeps_types_and_literals(tree: Any, expected: Any) -> None:
    """Exactly one expression keeps its type, inside text all becomes text; the source compiles to the same."""
    template = compile_template(tree)
    assert render(template, SCOPE) == expected
    again = compile_template(template.source)
    assert render(again, SCOPE) == expected
    assert (again.reads, again.source) == (template.reads, template.source)


def test_input_26_text_that_came_from_data_is_never_evaluated() -> None:
    """Rendered once, and what came out stays as it is."""
    hostile = "${{ inputs.a }} {{ 1 }} $${{ x }}"
    template = compile_template({"x": "${{ inputs.h }}", "y": "say ${{ inputs.h }}"})
    assert render(template, {"inputs": {"h": hostile}}) == {"x": hostile, "y": f"say {hostile}"}


def test_every_fault_of_a_template_is_found_with_its_place() -> None:
    """Path into the tree, and offset inside the string."""
    with pytest.raises(RefusedExpressionError) as caught:
        compile_template({"a": ["ok", "x ${{ nope }} ${{ inputs.a + }}"], "b": "${{ open"})
    places = [(fault.path, fault.offset, fault.text) for fault in caught.value.faults]
    assert places == [
        (("a", 1), 6, "unknown name `nope`"),
        (("a", 1), 29, "Syntax error: mismatched input end of the expression"),
        (("b",), 0, "`${{` is never closed by `}}`"),
    ]


def test_an_alias_of_the_item_is_compiled_away() -> None:
    """The source that an executor compiles again knows only `item`; functions, fields and texts of that name stay."""
    tree = {"p": "${{ file(file.path) + file.file + 'file' }}", "q": "x ${{ [file].map(f, f.path)[0] }}"}
    template = compile_template(tree, loops={"file": "item", "index": "index"})
    assert template.reads == {"item"}
    assert template.source["p"] == "${{ file(item.path) + item.file + 'file' }}"
    item = {"path": "a", "file": "b"}
    assert render(compile_template(template.source), {"item": item}, files=reading) == {"p": "<a>bfile", "q": "x a"}
    with pytest.raises(RefusedExpressionError, match="it is called `file`"):
        compile_expression("item.x", loops={"file": "item", "index": "index"})
