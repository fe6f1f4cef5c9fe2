"""The catalogue is a fold, and its hash does not depend on the order of anything."""

import random

from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import ConflictError, NotFoundError
from headrace.contracts.events import ToolName, ToolSpec
from headrace_tool_registry.decide import Origin, disable, register
from headrace_tool_registry.state import EMPTY, Catalogue, catalogue_hash, enabled, evolve, find

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
