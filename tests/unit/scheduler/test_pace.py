"""A busy partition leaves the others, and the lease, their turn."""

import asyncio
import itertools

from headrace.runtime.clock import SystemClock
from headrace_scheduler.pace import FOLLOW_US, SLICE_US, Pace


async def test_whoever_waits_gets_a_turn_each_slice() -> None:
    """Given a partition with much to do, when it works, then another task runs once a slice, not only at the end."""
    pace, turns, pieces = Pace(SystemClock()), [], 10 * SLICE_US // FOLLOW_US
    done = 0

    async def other() -> None:
        while done < pieces:
            turns.append(done)
            await asyncio.sleep(0)

    waiting = asyncio.create_task(other())
    while done < pieces:
        await pace.work(FOLLOW_US)
        done += 1
    await waiting

    gaps = [later - earlier for earlier, later in itertools.pairwise(turns)]
    assert len(turns) >= 9, turns
    assert max(gaps) * FOLLOW_US <= SLICE_US, gaps
