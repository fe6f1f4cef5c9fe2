"""A projection reads everything once, goes on behind what it cannot read, and can be thrown away."""

import pytest
from tests.conftest import until

from headrace.contracts import codec, subjects
from headrace.contracts.errors import UnavailableError
from headrace.contracts.events import StoredMessage, ToolRegistered, ToolSpec
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import Stored
from headrace.runtime.memory import MemoryBroker
from headrace.runtime.projection import Projection
from headrace.runtime.supervisor import Supervisor


class Seen:
    """What was applied since the last reset."""

    def __init__(self, *, fails_on: str = "") -> None:
        self.tools: list[str] = []
        self.resets, self._fails_on = 0, fails_on

    def apply(self, _: Stored, message: StoredMessage) -> None:
        assert isinstance(message, ToolRegistered)
        if message.data.tool == self._fails_on:
            self._fails_on = ""
            msg = "our own bug"
            raise LookupError(msg)
        self.tools.append(message.data.tool)

    def reset(self) -> None:
        self.tools, self.resets = [], self.resets + 1


def projection(memory: MemoryBroker, seen: Seen) -> Projection:
    return Projection(
        memory,
        stream=subjects.TOOLS,
        filters=(subjects.TOOLS_ALL,),
        clock=SystemClock(),
        apply=seen.apply,
        reset=seen.reset,
    )


async def write(memory: MemoryBroker, tool: str) -> int:
    message = ToolRegistered(
        specversion="1.0",
        id=tool,
        source="/t",
        time="",
        schemaver=1,
        tenant="t",
        data=ToolSpec(tool=tool, version="1", description="", args={}),
    )
    return (await memory.append(subjects.tool("t", tool), codec.encode(message))).seq


async def test_an_empty_stream_is_caught_up_at_once(memory: MemoryBroker, supervisor: Supervisor) -> None:
    """A service with nothing to read is ready."""
    fold = projection(memory, Seen())
    supervisor.start("fold", fold.run)
    await fold.wait_caught_up(within_s=0.4)


async def test_it_has_caught_up_when_what_was_there_is_folded(memory: MemoryBroker, supervisor: Supervisor) -> None:
    """And follows what comes."""
    seen = Seen()
    for index in range(1_200):
        await write(memory, f"t{index}")
    fold = projection(memory, seen)
    supervisor.start("fold", fold.run)
    await fold.wait_caught_up(within_s=5)
    assert len(seen.tools) == 1_200
    seq = await write(memory, "new")
    await fold.reach(seq, within_s=1)
    assert seen.tools[-1] == "new"


async def test_it_does_not_claim_what_it_has_not_read(memory: MemoryBroker) -> None:
    """Waiting is bounded, and says how far it came."""
    fold = projection(memory, Seen())
    with pytest.raises(UnavailableError, match="read up to 0, not yet 5"):
        await fold.reach(5, within_s=0.02)
    with pytest.raises(UnavailableError, match="still reading"):
        await fold.wait_caught_up(within_s=0.02)


async def test_a_crash_in_the_fold_begins_again_from_nothing(memory: MemoryBroker, supervisor: Supervisor) -> None:
    """No half-applied state survives."""
    seen = Seen(fails_on="b")
    for tool in "abc":
        await write(memory, tool)
    fold = projection(memory, seen)
    supervisor.start("fold", fold.run)
    await until(lambda: seen.tools == ["a", "b", "c"])
    assert (seen.resets, supervisor.crashes["fold"]) == (2, 1)
