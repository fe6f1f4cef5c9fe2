"""What a run may take over from another one: a second model of the rules, as `automaton` is one of runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace.contracts import events as ev

if TYPE_CHECKING:  # a history calls this; naming its type back is no dependency
    from tests.simulation.automaton import RunHistory


def take_over(run: "RunHistory", seq: int, time_ms: int, message: ev.RunDecided, event: ev.RunForked) -> None:
    """Once, with the creation. What is taken over has ended, what it needs is taken over too, the step is not."""
    data = message.data
    if data.version != 1 or not isinstance(data.events[0], ev.RunCreated) or run.forked is not None:
        run.complain(f"{seq}: forked after its creation")
    run.forked = event
    for one in event.taken:
        step = run.step(one.path)
        step.attempt, step.output = one.attempt, one.output
        run.end(seq, time_ms, one.path, "completed" if one.status == "succeeded" else one.status)
    for one in event.taken:
        missing = [need for need in run.node(one.path).get("needs", ()) if not run.has_ended(need)]
        if missing or one.path == event.step:
            run.complain(f"{seq}: {one.path} is taken over by a fork at {event.step} without {missing}")


def violations(runs: "Mapping[str, RunHistory]") -> list[str]:
    """What is taken over ended so in the other run, before it was read there, with this very output. That it is not
    called here is judged as any call: no decision of this run has scheduled it."""
    found = []
    for run in runs.values():
        if run.forked is None:
            continue
        origin = runs[run.forked.origin]
        for one in run.forked.taken:
            step = origin.steps.get(one.path)
            what = f"run {run.run}: {one.path} taken over from {origin.run} as {one.status}"
            if step is None or not step.ended or step.ended_seq > run.forked.seq:
                found.append(f"{what} had not ended there at {run.forked.seq}")
            elif step.phase != ("completed" if one.status == "succeeded" else one.status):
                found.append(f"{what} was {step.phase} there")
            elif one.output is not None and step.output is not None and one.output != step.output:
                found.append(f"{what} with another output")
    return found
