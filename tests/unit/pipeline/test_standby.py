"""Steps that stand in for others: who they belong to, what they may read, and how they are kept out of the graph."""

import pytest

from headrace.pipeline.bundle import load_text
from headrace.pipeline.plan import Fallback, Plan
from headrace.pipeline.problems import RefusedDefinitionError


def plan(steps: str) -> Plan:
    return load_text(f"pipeline: p\nsteps:\n{steps}", pending={}).plan


def refused(steps: str) -> list[str]:
    with pytest.raises(RefusedDefinitionError) as caught:
        plan(steps)
    return [f"{problem.line}:{problem.column} {problem.code} {problem.text}" for problem in caught.value.found]


def test_a_fallback_is_no_step_of_the_graph_and_its_owner_waits_for_what_it_reads() -> None:
    """What only the fallback reads orders the owner, and skips it not."""
    made = plan(
        "  a: {tool: x, fallback: b}\n  b: {transform: '${{ [steps.c.output, steps.a.error.code] }}', fallback: d}\n"
        "  c: {tool: x}\n  d: {transform: '${{ steps.e.output }}'}\n  e: {tool: x}\n"
        "  f: {transform: '${{ steps.a.output }}'}\n"
    )
    a, b, c, d, e, f = made.nodes
    assert a.fallback == Fallback(node=b.index)
    assert b.fallback == Fallback(node=d.index)
    assert [b.standby_for, d.standby_for, a.standby_for] == [a.index, b.index, None]
    assert a.needs == (c.index, e.index)
    assert a.optional == {c.index, e.index}
    for node in (b, d):
        assert (node.needs, node.dependents) == ((), ())
    assert f.needs == (a.index,)


def test_a_compensation_may_read_its_owner_and_what_came_before() -> None:
    """Nothing else is known to have run when it is called for."""
    steps = (
        "  a: {tool: x, needs: c, compensate: b}\n"
        "  b: {tool: x, with: {a: '${{ steps.a.output }}', c: '${{ STEP }}'}}\n"
        "  c: {tool: x}\n  d: {tool: x}\n"
    )
    made = plan(steps.replace("STEP", "steps.c.output"))
    assert made.by_id["a"].compensate == made.by_id["b"].index
    assert made.by_id["b"].standby_for == made.by_id["a"].index
    assert refused(steps.replace("STEP", "steps.d.output")) == [
        "4:3 E1215 step `d` cannot have run when `b` undoes `a`"
    ]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("  a: {tool: x, fallback: a}\n", ["3:26 E1202 step `a` names itself"]),
        ("  a: {tool: x, fallback: z}\n", ["3:26 E1201 no step `z` beside this one"]),
        (
            "  a: {tool: x, fallback: c}\n  b: {tool: x, fallback: c}\n  c: {tool: x}\n",
            ["4:26 E1212 `c` is the fallback of `a` already"],
        ),
        (
            "  a: {tool: x, compensate: c}\n  c: {tool: x, needs: b, compensate: b}\n  b: {tool: x}\n",
            [
                "4:16 E1212 `c` is the compensation of `a`, so `needs` has no meaning here",
                "4:23 E1215 step `b` cannot be needed: it only undoes `c`",
                "4:26 E1212 `c` is the compensation of `a`, so `compensate` has no meaning here",
            ],
        ),
        (
            "  a: {tool: x, fallback: b}\n  b: {tool: x, fallback: a}\n",
            ["3:3 E1203 the steps stand in for each other: a → b → a"],
        ),
        (
            "  a: {tool: x, fallback: b}\n  b: {tool: x}\n  c: {transform: '${{ steps.b.output }}'}\n",
            ["5:29 E1215 step `b` cannot be read: it only stands in for `a`; read `steps.a`"],
        ),
    ],
)
def test_what_has_no_meaning_is_refused(steps: str, expected: list[str]) -> None:
    """Rings, sharing, and reading what may never run."""
    assert refused(steps) == expected
