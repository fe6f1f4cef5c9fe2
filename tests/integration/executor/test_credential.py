"""Row 44: a key that is refused in the middle of a run. Nothing is called again before there is another."""

from pathlib import Path

from headrace.contracts import events
from headrace_step_executor.parts import Surroundings
from tests.conftest import Connect, until
from tests.integration.executor.rig import running
from tests.unit.step_executor.vendors.openai import OpenAI
from tests.unit.step_executor.vendors.said import Said, Trouble, reply
from tests.unit.step_executor.wire import serving


async def test_input_44_a_refused_key_defers_the_order_and_a_rotated_one_goes_on(
    connect_broker: Connect, tmp_path: Path
) -> None:
    """401: the attempt is not burnt, another offer with the same key calls nobody, the next key answers the order."""
    key = tmp_path / "key"
    key.write_text("old")

    async def answer(asked: bytes) -> bytes:
        good = b"bearer new" in asked.lower()
        return reply(OpenAI(), asked, Said() if good else Trouble(401))

    async with serving(answer) as wire:
        environ = {"OPENAI_API_KEY_FILE": str(key), "OPENAI_BASE_URL": f"{wire.url}/v1"}
        async with running(connect_broker, tmp_path, around=Surroundings(environ=environ)) as rig:
            spec = {"model": "openai/m", "prompt": "hi", "allow_unpriced": True}
            fields = {"queue": "llm", "kind": "llm", "input": spec, "timeout_ms": 60_000}
            for offer in (1, 2):
                await rig.publish(rig.order(offer=offer, **fields))
                await until(lambda offer=offer: _has(rig, offer), within_s=30)
                report = (await rig.reports())[-1]
                assert isinstance(report, events.AttemptDeferred), report
                assert report.data.reason == "credential"
                assert report.data.due_ms > rig.clock.now_ms()
                assert "old" not in repr(report)
            assert len(wire.requests) == 1, "the refused key was tried again"
            key.write_text("new")
            await rig.publish(rig.order(offer=3, **fields))
            await until(lambda: _has(rig, 3), within_s=30)
            assert isinstance((await rig.reports())[-1], events.AttemptSucceeded)
            assert len(wire.requests) == 2


async def _has(rig: object, count: int) -> bool:
    return len(await rig.reports()) >= count  # type: ignore[attr-defined]
