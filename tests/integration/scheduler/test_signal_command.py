"""`run-signal` through a real broker: what is accepted, what is refused, and that its step goes on."""

from typing import Any

from headrace.contracts import events as ev
from headrace.runtime.jetstream import JetStreamBroker
from tests.engine import command, finished, outputs, put, running_scheduler, start

GATE = """\
pipeline: gate
steps:
  s: {signal: {name: go, schema: {type: integer}}}
outputs: {n: "${{ steps.s.output }}"}
"""


async def refused(broker: JetStreamBroker, data: dict[str, Any], command_id: str) -> str:
    """The code of the refusal of a signal."""
    answer = await command(broker, "run-signal", data, command_id=command_id)
    assert isinstance(answer, ev.CommandRefused), answer
    return answer.data.reasons[0].code


async def test_input_47_a_signal_is_taken_once_and_refused_where_nobody_can_take_it(broker: JetStreamBroker) -> None:
    """Unknown run 404, ended run 409 with its state, a payload that does not fit is refused and the step waits on."""
    async with running_scheduler(broker):
        await put(broker, GATE)
        await start(broker, "gate", "r1")
        assert await refused(broker, {"runid": "r1", "name": "go", "payload": "x"}, "c1") == "payload_invalid"
        assert await refused(broker, {"runid": "r1", "name": "gone"}, "c2") == "not_found"
        assert await refused(broker, {"runid": "r9", "name": "go", "payload": 1}, "c3") == "not_found"
        answer = await command(broker, "run-signal", {"runid": "r1", "name": "go", "payload": 4}, command_id="c4")
        assert isinstance(answer, ev.CommandAccepted)
        assert outputs(await finished(broker, "r1")) == {"n": 4}
        assert await refused(broker, {"runid": "r1", "name": "go", "payload": 5}, "c5") == "conflict"
