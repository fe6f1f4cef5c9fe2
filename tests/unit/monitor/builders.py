"""Valid decisions with one thing overridden."""

from headrace.contracts import codec
from headrace.contracts.events import Decided, DecisionEvent, RunCreated, RunDecided


def created(**inputs: object) -> RunCreated:
    return RunCreated(
        defdigest="d" * 64, inputs=codec.inline(inputs), deadline_ms=10_000, request="q", labels={"team": "a"}
    )


def decided(run: str, version: int, *events: DecisionEvent, at_ms: int = 0, tenant: str = "default") -> RunDecided:
    return RunDecided(
        specversion="1.0",
        id=f"{run}-{version}",
        source="/scheduler/t",
        time="2026-11-25T00:00:00.000000Z",
        schemaver=1,
        tenant=tenant,
        pipeline="p",
        runid=run,
        data=Decided(version=version, at_ms=at_ms or version, events=events),
    )
