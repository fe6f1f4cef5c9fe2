"""Steps that wait for a signal. One that came before its step waits for it; each is taken once. Pure."""

from headrace.contracts import events as ev
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Node, Plan, node_of
from headrace_scheduler.draft import Writer
from headrace_scheduler.records import SLEEPING, Inst, Run


def is_heard(run: Run, plan: Plan, inst: Inst) -> bool:
    """True when a step waits for a signal that has come."""
    if not run.signals or inst.timer != "signal" or inst.status != SLEEPING:
        return False
    signal = node_of(plan, inst.path).signal
    return signal is not None and bool(run.signals.get(signal.name))


def await_signal(writer: Writer, node: Node, path: str) -> None:
    """Take the signal when it is there; wait for it otherwise."""
    assert node.signal is not None, path
    if not take_signal(writer, node, path):
        due_ms = min(writer.now_ms + node.signal.timeout_ms, writer.run.end_ms)
        writer.emit(ev.SignalAwaited(path=path, name=node.signal.name, due_ms=due_ms))


def take_signal(writer: Writer, node: Node, path: str) -> bool:
    """True when there was one: its payload is the step's output."""
    assert node.signal is not None, path
    name = node.signal.name
    waiting = writer.run.signals.get(name)
    if not waiting:
        return False
    signal = waiting[0]
    writer.emit(ev.SignalTaken(path=path, name=name, signal=signal.id))
    writer.emit(ev.StepCompleted(path=path, output=signal.payload))
    return True


def stop_waiting(writer: Writer, node: Node, path: str) -> None:
    """The signal has come, or its time has passed."""
    assert node.signal is not None, path
    if take_signal(writer, node, path):
        return
    writer.emit(ev.TimerFired(path=path, timer="signal"))
    reason = f"no signal `{node.signal.name}` came in time"
    if node.signal.skip_on_timeout:
        writer.emit(ev.StepSkipped(path=path, reason=reason))
    else:
        writer.fail_step(path, Failure(code="timeout", message=f"{path}: {reason}"))
