"""The catalogue is a fold, and its hash does not depend on the order of anything."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import ConflictError, DataError, NotFoundError
from headrace.contracts.events import ToolName, ToolSpec
from headrace.pipeline import json_schemas
from headrace_tool_registry.decide import Origin, approve, disable, register
from headrace_tool_registry.state import EMPTY, Catalogue, catalogue_hash, enabled, evolve, find, waiting

SPECS = st.builds(
    ToolSpec,
    tool=st.sampled_from(["a", "b.c"]),
    version=st.sampled_from(["1", "1.2", "1.10", "2.0.rc1"]),
    description=st.sampled_from(["x", "y"]),
    args=st.sampled_from([{}, {"type": "object"}]),
)
COMMANDS = st.lists(SPECS | st.builds(ToolName, tool=st.sampled_from(["a", "b.c"]), version=st.just("1")))


def origin(seq: int = 0) -> Origin:
    return Origin(tenant="t", source="/tool-registry/x", time="", seq=seq)


def carry_out(commands: list[ToolSpec | ToolName]) -> tuple[Catalogue, list[object]]:
    state, log = EMPTY, []
    for command in commands:
        try:
            if isinstance(command, ToolSpec):
                event = register(state, command, origin=origin(len(log)))
            else:
                event = disable(state, command, origin=origin(len(log)))
        except (ConflictError, NotFoundError):
            continue
        if event is not None:
            log.append(event)
            state = evolve(state, event)
    return state, log


@given(COMMANDS)
def test_promise_p12_the_catalogue_is_the_fold_of_its_events(commands: list[ToolSpec | ToolName]) -> None:
    """Folding again gives the same; carrying everything out again adds nothing; ids are never used twice."""
    state, log = carry_out(commands)
    again = EMPTY
    for event in log:
        again = evolve(again, event)  # type: ignore[arg-type]  # only tool events are in it
    assert again.tools == state.tools
    assert len({event.id for event in log}) == len(log)  # type: ignore[attr-defined]
    for command in commands:
        spec = find(state, "t", command.tool, command.version)
        if isinstance(command, ToolSpec) and spec == command:
            assert register(state, command, origin=origin()) is None


@given(st.lists(SPECS, max_size=6), st.randoms())
def test_the_hash_does_not_depend_on_order(specs: list[ToolSpec], chance: random.Random) -> None:
    """Equal catalogues have equal hashes, others have not."""
    shuffled = list(specs)
    chance.shuffle(shuffled)
    assert catalogue_hash(specs) == catalogue_hash(shuffled)
    more = [*specs, ToolSpec(tool="z", version="1", description="", args={})]
    assert catalogue_hash(specs) != catalogue_hash(more)


def test_tools_are_a_tenants_own() -> None:
    """Nobody finds what another tenant registered."""
    spec = ToolSpec(tool="a", version="1", description="", args={})
    event = register(EMPTY, spec, origin=origin())
    assert event is not None
    state = evolve(EMPTY, event)
    assert find(state, "t", "a") == spec
    assert find(state, "other", "a") is None
    assert enabled(state, "other") == ()


def described(text: str, version: str) -> ToolSpec:
    return ToolSpec(tool="mcp.s.t", version=version, description=text, args={}, endpoint="nats:tools.t.x.1")


def test_input_54_a_changed_tool_of_a_server_is_off_until_it_is_approved() -> None:
    """All versions are off, the new one waits; approving enables it alone, and a way back is a change as well."""
    old, new = described("old", "h1"), described("new", "h2")
    state, log = carry_out([old, new])
    assert [type(event).__name__ for event in log] == ["ToolRegistered", "ToolChanged"]
    assert (enabled(state, "t"), waiting(state, "t")) == ((), (new,))
    assert register(state, new, origin=origin(2)) is None, "saying it again changes nothing"
    with pytest.raises(NotFoundError):
        approve(state, ToolName(tool="mcp.s.u", version=""), origin=origin(2))
    with pytest.raises(ConflictError):
        approve(state, ToolName(tool="mcp.s.t", version="h1"), origin=origin(2))

    approved = approve(state, ToolName(tool="mcp.s.t", version=""), origin=origin(2))
    assert approved is not None
    state = evolve(state, approved)
    assert (enabled(state, "t"), waiting(state, "t")) == ((new,), ())
    back = register(state, old, origin=origin(3))
    assert back is not None
    state = evolve(state, back)
    assert (enabled(state, "t"), waiting(state, "t")) == ((), (old,))


@pytest.mark.parametrize("text", ["x\u200by", "x\u202ey", "x\x1b[2J", "x" * 16_385, "\U000e0041"])
def test_a_description_that_a_person_cannot_see_whole_is_refused(text: str) -> None:
    """What is approved is what is shown."""
    with pytest.raises(DataError, match="description"):
        register(EMPTY, described(text, "h1"), origin=origin())


def test_nobody_stands_in_for_a_built_in_tool() -> None:
    """A newer `fs.read` of a worker would get every call."""
    spec = ToolSpec(tool="fs.read", version="99", description="d", args={}, endpoint="nats:tools.t.x.1")
    with pytest.raises(DataError, match="built-in"):
        register(EMPTY, spec, origin=origin())


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "nonsense"}, "/type"),
        ({"properties": {"a/b": {"type": "nonsense"}}}, "/properties/a~1b/type"),
        ({"properties": {"a": {"pattern": "("}}}, "/properties/a/pattern"),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "/properties/a/pattern"),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}}, "/properties/a/$ref"),
        ({"allOf": [{}, {"$ref": "#/nowhere"}]}, "/allOf/1/$ref"),
    ],
)
def test_input_53_a_schema_that_cannot_be_used_is_refused_with_its_place(schema: dict[str, Any], pointer: str) -> None:
    """By JSON pointer; a pattern that cannot run in linear time is no pattern here."""
    spec = ToolSpec(tool="a.b", version="1", description="d", args=schema)
    with pytest.raises(DataError) as raised:
        register(EMPTY, spec, origin=origin())
    assert f"args is no JSON Schema: {pointer}: " in str(raised.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"properties": {"n": {"$ref": "#"}}},
        {"properties": {"n": {"pattern": "^(a+)+$"}}},
    ],
)
def test_input_53_recursion_and_catastrophic_patterns_end(schema: dict[str, Any]) -> None:
    """A schema that refers to itself, and a pattern that elsewhere takes for ever, are checked in linear time."""
    spec = ToolSpec(tool="a.b", version="1", description="d", args=schema)
    assert register(EMPTY, spec, origin=origin()) is not None
    checker = json_schemas.validator(schema)
    assert len(json_schemas.errors(checker, {"n": "a" * 100_000 + "!"})) <= 1
