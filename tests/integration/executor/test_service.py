"""The executor over a real nats-server."""

from pathlib import Path
from typing import Any

from headrace.contracts import events
from tests.conftest import Connect
from tests.integration.executor.rig import running


async def test_an_order_becomes_one_report_and_is_acknowledged(
    connect_broker: Connect, tmp_path: Path
) -> None:
    """The whole way: order in, tool called, report out with its causes, order gone from the queue."""
    async with running(connect_broker, tmp_path) as rig:
        report: Any = await rig.ran(tool="text.split", input={"text": "abc def", "size": 4})
        assert isinstance(report, events.AttemptSucceeded), report
        assert bytes(report.data.output.json) == b'{"count":2,"parts":["abc ","def"]}'
        assert (report.data.decision, report.data.offer, report.causationid) == ("d1", 1, "d1")
        assert (report.correlationid, report.traceparent, report.stepid, report.attempt) == (
            "r1",
            "00-aa-bb-01",
            "a",
            1,
        )
        await rig.queue_is_empty()
        assert len(await rig.reports()) == 1
