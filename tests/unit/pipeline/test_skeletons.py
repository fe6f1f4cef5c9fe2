"""Expressions with one skeleton compile alike: what sharing must never change."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipeline.cel_library import environment
from headrace.pipeline.evaluation import compile_expression
from headrace.pipeline.references import analyse
from headrace.pipeline.skeletons import filled, skeleton_of


@pytest.mark.parametrize(
    ("source", "skeleton", "fields"),
    [
        ("steps.a.output.n > 12", "steps.f_0.f_1.f_2 > 1", ("a", "output", "n")),
        ("steps.a.output.a == 1", "steps.f_0.f_1.f_0 == 1", ("a", "output")),
        ("inputs.?a.orValue(7)", "inputs.?f_0.orValue(7)", ("a",)),
        ("[1].map(x, x.a)", "[1].map(x, x.a)", ()),
        ('steps["a-b"].output > 3', 'steps["a-b"].output > 1', ()),
        ("inputs.a ? inputs.b : 2", "inputs.f_0 ? inputs.f_1 : 2", ("a", "b")),
        ("inputs.in", "inputs.in", ()),
        ("inputs.size()", "inputs.size()", ()),
        ("inputs.a == 1.5", "inputs.f_0 == 1.5", ("a",)),
        ("inputs.a > 9223372036854775808", "inputs.f_0 > 9223372036854775808", ("a",)),
        ("inputs.a == '// x' // inputs.b", "inputs.f_0 == '// x'  ", ("a",)),
        ("inputs.f_0 + inputs.a", "inputs.f_0 + inputs.a", ()),
        ("google.protobuf.Timestamp{}", "google.protobuf.Timestamp{}", ()),
    ],
)
def test_fields_and_compared_numbers_are_taken_out(source: str, skeleton: str, fields: tuple[str, ...]) -> None:
    """Nothing else: calls, texts, keys and reserved words decide whether an expression compiles."""
    assert skeleton_of(source) == (skeleton, fields)


NAMES = st.sampled_from(["a", "b", "output", "status", "size", "in", "f_1", "index"])
ROOTS = st.sampled_from(["inputs", "steps.s1.output", "vars", "item", "index", "run", "x"])
VALUES = st.sampled_from(["1", "0", "12345678901234567890", "1.5", "'t'", "true", "null", "[1]", "{'k': 2}"])
OPERATORS = st.sampled_from(["==", "<", ">=", "+", "&&", "in", "!=", "/"])
PATHS = st.builds(
    lambda root, steps: root + "".join(steps), ROOTS, st.lists(NAMES.map(lambda name: f".{name}"), max_size=3)
)
SOURCES = st.recursive(
    st.one_of(PATHS, VALUES),
    lambda inner: st.one_of(
        st.builds(lambda a, op, b: f"{a} {op} {b}", inner, OPERATORS, inner),
        st.builds(lambda a, b: f"({a} ? {b} : {b})", inner, inner),
        st.builds(lambda a: f"size({a})", inner),
        st.builds(lambda a, b: f"[{a}].map(x, x == {b})", inner, inner),
        st.builds(lambda a: f"has({a})", inner),
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(SOURCES)
def test_the_skeleton_tells_what_the_expression_itself_would(source: str) -> None:
    """Whether it compiles, its type, what it reads and calls."""
    skeleton, fields = skeleton_of(source)

    def told(text: str) -> tuple[object, ...] | None:
        try:
            compiled = environment().compile(text)
        except RuntimeError:
            return None
        analysis = analyse(compiled.serialize())
        reads = [(found.root, filled(found.path, fields), found.optional_from) for found in analysis.references]
        return compiled.return_type().name(), analysis.functions, analysis.makes_list, reads

    if fields or skeleton != source:
        of_skeleton = told(skeleton)
        if of_skeleton is not None:
            whole = environment().compile(source)
            analysis = analyse(whole.serialize())
            reads = [(found.root, found.path, found.optional_from) for found in analysis.references]
            assert of_skeleton == (whole.return_type().name(), analysis.functions, analysis.makes_list, reads)


def test_many_expressions_of_one_skeleton_have_their_own_names() -> None:
    """Shared is only what is the same."""
    made = [compile_expression(f"steps.s{number}.output.v{number} > {number}") for number in range(5)]
    assert [expression.reads for expression in made] == [{f"steps.s{number}.output"} for number in range(5)]
    assert made[3].references[0].path == ("s3", "output", "v3")
