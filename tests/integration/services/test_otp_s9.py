"""S9: failed probes stop admission and are heard of."""

from tests.conftest import until

from headrace.contracts import codec, subjects
from headrace.contracts.events import AlertCleared, AlertRaised
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import Broker
from headrace.runtime.probes import Admission, ProbeError, Usage
from headrace.runtime.supervisor import Supervisor


async def test_otp_s9_a_failed_memory_probe_stops_admission_and_is_an_alert(streams: Broker) -> None:
    """Unknown is over the limit: new work is refused, an alert is in the log, and both end with the
    failure."""
    broken = True

    def probe() -> Usage:
        if broken:
            msg = "memory: /proc is unreadable"
            raise ProbeError(msg)
        return Usage(1, 100)

    async def newest_alert() -> AlertRaised | AlertCleared | None:
        stored = await streams.last(subjects.SYSTEM, subjects.alert("memory"))
        return None if stored is None else codec.decode(stored.body)  # type: ignore[return-value]  # alerts alone

    async def is_newest(kind: type) -> bool:
        return isinstance(await newest_alert(), kind)

    gate = Admission(streams, clock=SystemClock(), source="/scheduler/t", tenant="default", probe_memory=probe)
    async with Supervisor(SystemClock()) as supervisor:
        supervisor.start("admission", gate.run)
        await until(lambda: is_newest(AlertRaised))
        refusal, alert = gate.refusal(), await newest_alert()
        broken = False
        await until(lambda: is_newest(AlertCleared))

    assert refusal is not None
    assert refusal.code == "probe_failed"
    assert alert is not None
    assert alert.data.failure == refusal
    assert gate.refusal() is None
