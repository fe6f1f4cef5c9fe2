"""Signs of life say who and how, count up, and end with a goodbye."""

from tests.conftest import until

from headrace.contracts import codec, subjects
from headrace.contracts.live import Beat
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SeededEntropy
from headrace.runtime.eventlog import BusMessage
from headrace.runtime.memory import MemoryBroker
from headrace.runtime.presence import Condition, Presence
from headrace.runtime.supervisor import Supervisor


async def test_a_service_beats_and_says_goodbye(memory: MemoryBroker, supervisor: Supervisor) -> None:
    """A listener can tell a missed beat from a restart, and a stop from a death."""
    beats: list[Beat] = []

    async def hear(message: BusMessage) -> None:
        beats.append(codec.decode_as(Beat, message.body))

    await memory.subscribe(subjects.PRESENCE_ALL, hear)
    presence = Presence(
        memory,
        clock=SystemClock(),
        entropy=SeededEntropy(1),
        service="monitor",
        instance="m-1",
        condition=lambda: Condition(ready=True, lag=3, partitions=(1, 2)),
    )
    supervisor.start("presence", presence.run)
    await until(lambda: len(beats) == 2)
    await presence.leave()
    await until(lambda: len(beats) == 3)

    assert [(beat.counter, beat.ready, beat.leaving) for beat in beats] == [
        (1, True, False),
        (2, True, False),
        (3, False, True),
    ]
    assert {beat.boot for beat in beats} == {beats[0].boot}
    assert (beats[0].service, beats[0].instance, beats[0].lag, beats[0].partitions) == ("monitor", "m-1", 3, (1, 2))
