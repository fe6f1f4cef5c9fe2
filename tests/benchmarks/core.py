"""The scheduler's pure core on one run: decide, write, read and fold, with executors that answer at once.

CPU time of this process only, because a loaded machine says nothing about the code; and what is compared is compared
within one process and minute.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.contracts import codec, ids
from headrace.contracts import events as ev
from headrace.contracts.codec import inline
from headrace.contracts.envelope import SPECVERSION, Value
from headrace.pipeline.plan import Plan
from headrace_scheduler import messages
from headrace_scheduler.decide import Limits, decide, next_due_ms
from headrace_scheduler.records import Run
from headrace_scheduler.state import created, evolve

SOURCE = "scheduler-0123456789"
START_MS = 1_790_000_000_000


@dataclass(slots=True)
class Cost:
    """What a run cost the scheduler."""

    run: Run
    steps: int
    """Attempts that executors reported."""
    cpu_s: float
    """Deciding, writing, reading and folding, and the little that the executors' part of this loop takes."""
    snapshot_bytes: int
    """The largest snapshot of the run, of those taken on the way."""
    snapshot_s: float
    """CPU time of writing and reading that one."""

    @property
    def us_per_step(self) -> float:
        """CPU time a step in microseconds."""
        return self.cpu_s / self.steps * 1e6


def measure(plan: Plan, inputs: dict[str, Any] | None = None, *, output: Any = None, snapshots: int = 0) -> Cost:
    """Run a plan to its end, in which each attempt of a step succeeds with `output`; decided after every report, which
    is the dearest way. `snapshots` are taken, each after as many more reports, and the run goes on from what was read.

    Raises:
        AssertionError: the run does not complete.
    """
    loop = _Loop(plan, inputs or {}, inline({"value": 1} if output is None else output))
    cost = Cost(loop.run, 0, 0.0, 0, 0.0)
    began, aside_s = time.process_time(), 0.0
    while not loop.run.ended:
        loop.turn()
        if snapshots and loop.steps % snapshots == 0 and not loop.run.ended:
            now = time.process_time()
            data = msgspec.json.encode(loop.run)
            loop.run = msgspec.json.decode(data, type=Run)
            spent = time.process_time() - now
            aside_s += spent
            if len(data) > cost.snapshot_bytes:
                cost.snapshot_bytes, cost.snapshot_s = len(data), spent
    assert loop.run.status == "completed", (loop.run.status, loop.run.failure)
    cost.run, cost.steps, cost.cpu_s = loop.run, loop.steps, time.process_time() - began - aside_s
    return cost


class _Loop:
    """One owner and its executors."""

    def __init__(self, plan: Plan, inputs: dict[str, Any], output: Value) -> None:
        self.plan, self.output = plan, output
        self.now_ms, self.seq, self.steps = START_MS, 1, 0
        self.out: deque[tuple[ev.Order, str]] = deque()
        first = messages.first_decision(
            messages.Creation(
                run="r1",
                tenant="default",
                pipeline=plan.pipeline,
                created=ev.RunCreated(
                    defdigest=plan.digest,
                    inputs=inline(inputs),
                    deadline_ms=START_MS + 86_400_000,
                    request="0" * 32,
                    traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
                ),
                cause="start-r1",
                source=SOURCE,
                now_ms=START_MS,
                correlation="r1",
            )
        )
        message = codec.decode(first.body)
        assert isinstance(message, ev.RunDecided)
        run = created(message)
        assert run is not None
        self.run = run
        evolve(run, 1, message, plan)

    def turn(self) -> None:
        """Decide until nothing is missing, then hear of one attempt."""
        while (decision := decide(self.run, self.plan, now_ms=self.now_ms, limits=Limits({}))) is not None:
            _, message = messages.decided(self.run, decision, source=SOURCE)
            self.seq += 1
            evolve(self.run, self.seq, message, self.plan)
            self.out.extend((order, message.id) for order in decision.orders.values())
        next_due_ms(self.run, self.plan, now_ms=self.now_ms)
        if self.run.ended:
            return
        report = codec.decode(codec.encode(self._report(*self.out.popleft())))
        self.seq += 1
        assert evolve(self.run, self.seq, report, self.plan)
        self.steps += 1
        self.now_ms += 1

    def _report(self, order: ev.Order, decision: str) -> ev.AttemptSucceeded:
        return ev.AttemptSucceeded(
            specversion=SPECVERSION,
            id=ids.event_id("report", "default", "r1", order.path, order.attempt, 1, 0),
            source="step-executor-0123456789",
            time="2026-11-25T04:30:00.123000Z",
            schemaver=1,
            tenant="default",
            subject=f"run/r1/step/{order.path}",
            pipeline=self.plan.pipeline,
            runid="r1",
            stepid=order.path,
            attempt=order.attempt,
            causationid=decision,
            correlationid="r1",
            traceparent=self.run.traceparent,
            defdigest=self.plan.digest,
            data=ev.Succeeded(decision=decision, offer=1, output=self.output),
        )
