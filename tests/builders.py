"""Valid objects with one thing overridden: plans, messages, events, and an example of every type of the contracts."""

import functools
import json
from typing import Any

import msgspec

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts import ids, pseudo, rounds
from headrace.contracts.canonical import blake2b_hex, canonical_json
from headrace.contracts.codec import inline
from headrace.contracts.envelope import SPECVERSION, Message, Part, Value
from headrace.contracts.failure import Failure
from headrace.contracts.money import UnitPrices
from headrace.contracts.schemas import inner_types, stored_types, type_of
from headrace.pipeline.compile import compile_plan
from headrace.pipeline.definitions import Definition
from headrace.pipeline.plan import Plan, approval_hash
from headrace.runtime.clock import rfc3339
from headrace_scheduler.records import Run
from headrace_scheduler.state import created, evolve

NOON_MS = 1_764_072_000_000
TENANT = "default"
RUN = "01KAX5R7Q0ZJ8M2T9D4W6YB3CE"
DIGEST = "5f0c1d0b1ad2b2a0b2f6a8b1f2c1d4e3a5968778695a4b3c2d1e0f9f8e7d6c5b"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


# --- plans ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=512)
def _compiled(document: str) -> Plan:
    return compile_plan(Definition(main=json.loads(document)))


def plan(steps: dict[str, Any], **top: Any) -> Plan:
    """The plan of a pipeline with these steps; `top` overrides its other keys."""
    return _compiled(json.dumps({"pipeline": "demo", "steps": steps} | top))


def tool(**over: Any) -> dict[str, Any]:
    """A step that an executor runs."""
    return {"tool": "demo.echo", "with": {}} | over


REVIEW = {
    "list": {"tool": "fs.glob", "with": {"pattern": "src/**/*.py"}},
    "review": {
        "foreach": "steps.list.output.paths",
        "max_parallel": 2,
        "llm": {"model": "echo/echo", "prompt": "Review ${{ item }}"},
    },
    "child": {"pipeline": "publish", "with": {"title": "Review"}},
    "pause": {"needs": ["child"], "wait": {"for": "10m"}},
    "fix": {"needs": ["pause"], "when": "size(steps.list.output.paths) > 10", "tool": "demo.fix", "with": {}},
    "poll": {"needs": ["fix"], "until": "iteration > 1", "max_iterations": 3, "tool": "demo.poll", "with": {}},
    "tidy": {"needs": ["fix"], "tool": "demo.tidy", "with": {}, "fallback": {"value": 0}, "compensate": "untidy"},
    "go": {"needs": ["fix"], "signal": {"name": "go"}},
    "ok": {"needs": ["fix"], "approval": {"message": "Publish?", "by": ["lead"]}},
    "tell": {"needs": ["fix"], "emit": {"name": "told", "data": {"n": 1}}},
    "untidy": {"tool": "demo.untidy", "with": {}},
    "route": {
        "needs": ["fix"],
        "switch": [
            {"when": "false", "steps": {"a": {"tool": "demo.a"}}},
            {"default": {"steps": {"b": {"tool": "demo.b"}}}},
        ],
    },
}
"""The pipeline that the examples belong to: a tool, a map, a child, a timer, a condition, a loop and a switch."""


def review_plan() -> Plan:
    """The plan of the examples."""
    return plan(REVIEW, pipeline="review-repo")


# --- messages ------------------------------------------------------------------------------------


def message(kind: type[Message], data: Any, **over: Any) -> Any:
    """A message of a run with a whole envelope and a deterministic id."""
    fields: dict[str, Any] = {
        "specversion": SPECVERSION,
        "source": "/scheduler/one",
        "time": rfc3339(NOON_MS),
        "schemaver": 1,
        "tenant": TENANT,
        "pipeline": "review-repo",
        "runid": RUN,
        "correlationid": RUN,
        "causationid": "01KAX5R7Q0CMD",
        "traceparent": TRACEPARENT,
        "defdigest": DIGEST,
        "data": data,
    } | over
    place = fields.get("stepid", "")
    fields.setdefault("subject", f"run/{fields['runid']}" + (f"/step/{place}" if place else ""))
    if "id" not in fields:
        known = (fields["tenant"], fields["runid"], place, fields.get("attempt", 0))
        fields["id"] = ids.event_id(type_of(kind), *known, data=canonical_json(data))
    return kind(**fields)


def run_created(**over: Any) -> ev.RunCreated:
    """The first event of a run."""
    fields: dict[str, Any] = {
        "defdigest": DIGEST,
        "inputs": inline({"repo": "."}),
        "deadline_ms": NOON_MS + 86_400_000,
        "request": blake2b_hex(b"request"),
        "traceparent": TRACEPARENT,
    } | over
    return ev.RunCreated(**fields)


def decided(version: int, *events: ev.DecisionEvent, order: ev.Order | None = None, **over: Any) -> ev.RunDecided:
    """A decision. `at_ms` may be given among the overrides."""
    at_ms = over.pop("at_ms", NOON_MS)
    data = ev.Decided(version=version, at_ms=at_ms, events=events, order=order)
    made: ev.RunDecided = message(ev.RunDecided, data, **{"time": rfc3339(at_ms)} | over)
    return made


def order(**over: Any) -> ev.Order:
    """The order of the first step of the examples."""
    fields: dict[str, Any] = {
        "path": "list",
        "attempt": 1,
        "offer": 1,
        "decision": "6c1f0f6f4e0b4f0e9a3d1c2b3a495867",
        "version": 2,
        "queue": "tool-ws",
        "kind": "tool",
        "timeout_ms": 120_000,
        "not_after_ms": NOON_MS + 600_000,
        "due_ms": NOON_MS + 725_000,
        "scheduled_ms": NOON_MS,
        "tool": "fs.glob",
        "input": inline({"pattern": "src/**/*.py"}).json,
        "workspace": True,
    } | over
    return ev.Order(**fields)


def scheduled(path: str, *, attempt: int = 1, queue: str = "tool", **over: Any) -> ev.StepScheduled:
    """One attempt may run."""
    fields: dict[str, Any] = {
        "path": path,
        "attempt": attempt,
        "queue": queue,
        "input_sha": blake2b_hex(path.encode()),
        "not_after_ms": NOON_MS + 600_000,
        "due_ms": NOON_MS + 725_000,
    } | over
    return ev.StepScheduled(**fields)


def failure(**over: Any) -> Failure:
    """A failure worth another attempt."""
    fields: dict[str, Any] = {"code": "unavailable", "message": "503 from the other side", "retryable": True} | over
    return Failure(**fields)


def folded(plan: Plan, *messages: ev.RunMessage, first_seq: int = 1) -> Run:
    """The fold of a history that starts with the run's first decision."""
    first = messages[0]
    assert isinstance(first, ev.RunDecided)
    run = created(first)
    assert run is not None
    for seq, one in enumerate(messages, start=first_seq):
        evolve(run, seq, one, plan)
    return run


# --- one of everything ---------------------------------------------------------------------------

_CHILD = ids.child_run_id(RUN, "child")
_PATHS = inline({"paths": ["src/a.py", "src/b.py"]})


def example_events() -> dict[str, ev.DecisionEvent]:
    """One example of every event inside a decision, by type, with every field that has something to say."""
    events: tuple[ev.DecisionEvent, ...] = (
        run_created(labels={"team": "core"}, durability="D1", tracestate="vendor=1"),
        ev.RunCompleted(outputs=inline({"report": "https://example.test/reports/1"})),
        ev.RunFailed(failure=failure(code="denied", message="401 from the provider", retryable=False), path="review"),
        ev.RunCancelling(reason="no longer needed", due_ms=NOON_MS + 10_000),
        ev.RunCancelled(reason="no longer needed"),
        ev.RunPaused(reason="maintenance"),
        ev.RunResumed(),
        ev.RunBlocked(reason="no provider has a key", path="review"),
        ev.BudgetRaised(budget="", usd_nanos=2_000_000_000, tokens=500_000, reason="worth it"),
        ev.RunStalled(failure=Failure(code="upgrade_required", message="an unknown type"), seq=17),
        scheduled("list", queue="tool-ws"),
        ev.StepCompleted(path="list", attempt=1, report="0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
        ev.StepFailed(path="review[1]", attempt=5, failure=failure(retry_after_ms=2_000, causes=("TimeoutError",))),
        ev.StepSkipped(path="fix", reason="its condition is false"),
        ev.StepCancelled(path="child"),
        ev.ItemsStored(path="review", first=1_000, results=Part(ref=f"{RUN}/{'0f' * 32}", size=48_000, count=1_000)),
        ev.ForeachStarted(path="review", items=inline(["src/a.py", "src/b.py"]), count=2),
        ev.FallbackStarted(path="tidy", attempt=0, failure=failure(code="denied", retryable=False)),
        ev.CompensationStarted(path="tidy"),
        ev.RunFailing(failure=failure(code="denied", retryable=False), path="fix", due_ms=NOON_MS + 3_600_000),
        ev.SignalAwaited(path="go", name="go", due_ms=NOON_MS + 60_000),
        ev.RunForked(
            origin="01KAX5R7Q0ZJ8M2T9D4W6YB3CD",
            seq=812,
            version=7,
            step="publish",
            taken=(
                ev.Taken(path="list", status="succeeded", attempt=1, output=_PATHS, usage={"input_tokens": 12}),
                ev.Taken(path="fix", status="skipped"),
                ev.Taken(path="tidy", status="failed", attempt=2, failure=failure(), degraded=True),
            ),
        ),
        ev.SignalTaken(path="go", name="go", signal="0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
        ev.ApprovalRequested(
            path="ok",
            shown=inline({"message": "Publish?"}),
            hash=approval_hash({"message": "Publish?"}),
            due_ms=NOON_MS + 60_000,
            by=("lead",),
        ),
        ev.ApprovalGranted(path="ok", answer="0f1e2d3c4b5a69788796a5b4c3d2e1f0", by="lead", comment="at last"),
        ev.ApprovalDenied(path="ok", answer="0f1e2d3c4b5a69788796a5b4c3d2e1f0", by="lead", comment="not yet"),
        ev.OutcomeSettled(
            path="tidy",
            attempt=1,
            answer="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            decision="fail",
            by="lead",
            comment="it did not happen",
        ),
        ev.EmitStarted(path="tell", name="told", event="7b1e", data=inline({"n": 1}), hops=1),
        ev.LoopStarted(path="poll", carry=inline({"page": 1})),
        ev.ScopeStarted(path="route", attempt=1, due_ms=NOON_MS + 60_000, case=1),
        ev.TimerSet(
            path="list",
            timer="retry",
            due_ms=NOON_MS + 700,
            attempt=1,
            delay_ms=700,
            jitter=0.7,
            failure=failure(),
        ),
        ev.TimerFired(path="pause", timer="wait"),
        ev.ChildStarted(
            path="child",
            attempt=1,
            child=_CHILD,
            pipeline="publish",
            defdigest=DIGEST,
            inputs=inline({"title": "Review"}),
            due_ms=NOON_MS + 3_600_000,
        ),
        ev.ChildEnded(path="child", attempt=1, child=_CHILD, status="completed", outputs=inline({"url": "x"})),
    )
    return {type_of(type(event)): event for event in events}


SCHEDULE = ids.schedule_id(TENANT, "review-repo", 0)


def example_trigger_events() -> dict[str, pseudo.TriggerEvent]:
    """One example of every event inside a decision of a schedule, by type."""
    events: tuple[pseudo.TriggerEvent, ...] = (
        pseudo.TriggerArmed(
            trigger=0,
            defdigest=DIGEST,
            defseq=3,
            schedule=pseudo.CronSpec(cron="0 6 * * 1-5", timezone="Europe/Berlin", catch_up="all"),
            since_ms=NOON_MS,
        ),
        pseudo.TriggerDisarmed(defseq=9),
        pseudo.TriggerPaused(reason="maintenance"),
        pseudo.TriggerResumed(reason="done"),
        pseudo.TriggerFired(due_ms=NOON_MS, defdigest=DIGEST, backfill=True),
        pseudo.TriggerPassed(due_ms=NOON_MS),
        pseudo.TriggerStarted(due_ms=NOON_MS, run=ids.scheduled_run_id(SCHEDULE, NOON_MS)),
        pseudo.TriggerSkipped(due_ms=NOON_MS),
        pseudo.TriggerRefused(due_ms=NOON_MS, failure=Failure(code="refused", message="`repo` is required")),
        pseudo.TriggerBackfilling(from_ms=NOON_MS - 86_400_000, to_ms=NOON_MS),
        pseudo.TriggerBackfillRefused(failure=Failure(code="limit_exceeded", message="16 backfills wait")),
        pseudo.TriggerBackfilled(to_ms=NOON_MS),
    )
    return {type_of(type(event)): event for event in events}


def _step(kind: type[Message], data: Any, path: str = "list", **over: Any) -> Any:
    return message(kind, data, **{"stepid": path, "attempt": 1, "source": "/step-executor/two"} | over)


def example_messages() -> dict[str, Message]:
    """One example of every stored message and command, by type."""
    offer: dict[str, Any] = {"decision": order().decision, "offer": 1}
    usage = ev.Usage(input_tokens=812, output_tokens=96, cached_tokens=512, reasoning_tokens=32, model="echo/echo")
    cost = ev.Cost(
        usd_nanos=412_000,
        tokens=908,
        table="genai-prices 0.2.3 2026-11-25",
        prices={"openai/gpt-5-mini": UnitPrices(input=250_000, output=2_000_000, cached=25_000, reasoning=2_000_000)},
    )
    artifact = ev.Artifact(path="out/report.md", ref=f"{RUN}/{DIGEST}", size=4_096)
    tool_spec = ev.ToolSpec(
        tool="demo.echo",
        version="1.0.0",
        description="Gives back what it got.",
        args={"type": "object", "properties": {"text": {"type": "string"}}},
        effect="pure",
    )
    plain: dict[str, Any] = {"pipeline": "", "runid": "", "correlationid": "", "defdigest": "", "subject": ""}
    asked: dict[str, Any] = {"source": "client", "causationid": "", **plain}
    made: tuple[Message, ...] = (
        decided(1, run_created(labels={"team": "core"})),
        _step(ev.StepOrdered, order(), source="/scheduler/one"),
        _step(
            ev.AttemptSucceeded,
            ev.Succeeded(
                **offer,
                output=_PATHS,
                duration_ms=12,
                usage=usage,
                cost=cost,
                artifacts=(artifact,),
                files={"a": DIGEST},
            ),
        ),
        _step(ev.AttemptFailed, ev.Failed(**offer, failure=failure(retry_after_ms=500), duration_ms=30_012)),
        _step(ev.AttemptDeferred, ev.Deferred(**offer, reason="breaker_open", due_ms=NOON_MS + 30_000)),
        _step(ev.AttemptStarted, ev.Claimed(**offer, token="e3b0c44298fc1c14", executor="two")),
        _step(
            rounds.TurnCompleted,
            rounds.Turned(**offer, start="5f0c", round=1, response=inline({"parts": [], "model": "echo/echo"})),
        ),
        _step(rounds.ToolStarted, rounds.Begun(**offer, start="5f0c", round=1, call=0, tool="demo.echo")),
        _step(
            rounds.ToolCompleted,
            rounds.Called(**offer, start="5f0c", round=1, call=0, tool="demo.echo", content="[]", bytes=2),
        ),
        message(ev.BudgetRaiseRequested, ev.Raise(usd_nanos=2_000_000_000, reason="worth it")),
        message(ev.SignalReceived, ev.Signalled(name="go", payload=inline({"ok": True}))),
        message(
            ev.ApprovalGiven,
            ev.GivenAnswer(
                step="ok",
                hash=approval_hash({"message": "Publish?"}),
                decision="approve",
                by="lead",
                at_ms=NOON_MS,
                comment="at last",
            ),
            stepid="ok",
        ),
        message(ev.EventPublished, ev.Published(step="tell", event="7b1e"), stepid="tell"),
        message(ev.CancelRequested, ev.Reason(reason="no longer needed")),
        message(ev.PauseRequested, ev.Reason(reason="maintenance")),
        message(ev.ResumeRequested, ev.Reason()),
        _step(
            ev.ChildReported,
            ev.ChildResult(child=_CHILD, attempt=1, status="completed", outputs=inline({"url": "x"})),
            path="child",
            source="/scheduler/one",
        ),
        message(ev.CommandAccepted, ev.Accepted(command="01KAX5R7Q0CMD", runid=RUN), **plain),
        message(
            ev.CommandRefused,
            ev.Refused(
                command="01KAX5R7Q0CMD",
                reasons=(Failure(code="inputs_invalid", message="the input `repo` is required"),),
            ),
            **plain,
        ),
        message(
            ev.DefinitionRegistered,
            ev.Definition(
                digest=DIGEST,
                size=1_812,
                armed=True,
                armed_ms=NOON_MS,
                crons=(pseudo.CronSpec(cron="0 6 * * 1-5", timezone="Europe/Berlin"),),
                triggers=(
                    ev.TriggerSpec(event="repo-pushed", when='event.data.branch == "main"', inputs={"repo": "."}),
                ),
            ),
            **plain | {"pipeline": "review-repo"},
        ),
        message(ev.DefinitionRetired, ev.Reason(reason="superseded"), **plain | {"pipeline": "review-repo"}),
        *_pseudo_messages(),
        *_key_messages(),
        message(ev.ToolRegistered, tool_spec, **plain),
        message(ev.ToolChanged, tool_spec, **plain),
        message(ev.ToolDisabled, ev.ToolName(tool="demo.echo", version="1.0.0", reason="superseded"), **plain),
        message(ev.SessionOpened, ev.SessionOpening(session="chat-7", labels={"user": "ann"}), **plain),
        message(
            ev.TurnAppended,
            ev.Turn(session="chat-7", version=1, role="user", content=msgspec.Raw(b'{"text":"hello"}'), request="r1"),
            **plain,
        ),
        message(ev.SessionClosed, ev.SessionClosing(session="chat-7", version=1, reason="done"), **plain),
        message(ev.AlertRaised, ev.Alert(rule="run-stalled", about=RUN, failure=failure(retryable=False)), **plain),
        message(ev.AlertCleared, ev.Alert(rule="run-stalled", about=RUN), **plain),
        *_breaker_messages(),
        message(
            ev.MessageParked,
            ev.Parked(
                stream="HR_COMMANDS",
                subject="hr.cmd.default.run-start",
                seq=42,
                body=b"\xff{not json",
                headers={"Nats-Msg-Id": "x"},
                failure=Failure(code="malformed_message", message="not JSON"),
            ),
            **plain,
        ),
        message(cmd.RunStart, cmd.StartRun(pipeline="review-repo", inputs={"repo": "."}, runid="nightly-7"), **asked),
        message(cmd.RunRerun, cmd.RerunRun(runid=RUN, step="review", newid="again-1"), **asked),
        message(
            cmd.RunFork,
            cmd.ForkRun(runid=RUN, step="review", inputs={"repo": "/src"}, definition=f"review-repo@{DIGEST}"),
            **asked,
        ),
        message(cmd.BudgetRaise, cmd.RaiseBudget(runid=RUN, usd_nanos=2_000_000_000, tokens=500_000), **asked),
        message(cmd.RunSignal, cmd.SignalRun(runid=RUN, name="go", payload={"ok": True}), **asked),
        message(
            cmd.RunApprove,
            cmd.ApproveRun(runid=RUN, step="ok", hash=approval_hash({"message": "Publish?"}), by="lead"),
            **asked,
        ),
        message(cmd.RunCancel, cmd.NameRun(runid=RUN, reason="no longer needed"), **asked),
        message(cmd.RunPause, cmd.NameRun(runid=RUN), **asked),
        message(cmd.RunResume, cmd.NameRun(runid=RUN), **asked),
        message(cmd.DefinitionPut, cmd.PutDefinition(pipeline="review-repo", digest=DIGEST, arm=True), **asked),
        message(cmd.DefinitionRetire, cmd.NamePipeline(pipeline="review-repo", reason="superseded"), **asked),
        message(cmd.TriggerPause, cmd.NameTrigger(pipeline="review-repo", reason="maintenance"), **asked),
        message(cmd.TriggerResume, cmd.NameTrigger(pipeline="review-repo", trigger=0), **asked),
        message(
            cmd.TriggerBackfill,
            cmd.BackfillTrigger(pipeline="review-repo", from_ms=NOON_MS - 86_400_000, to_ms=NOON_MS, trigger=0),
            **asked,
        ),
    )
    return {type_of(type(one)): one for one in made}


KEY = ids.key_id(TENANT, "review-repo", "main")


def example_key_events() -> dict[str, pseudo.KeyEvent]:
    """One example of every event inside a decision of a concurrency key, by type."""
    expires_ms = NOON_MS + 86_400_000
    events: tuple[pseudo.KeyEvent, ...] = (
        pseudo.KeyFreed(run="nightly-6", reason="ended"),
        pseudo.KeyQueued(run=RUN, max=1, on_excess="queue", expires_ms=expires_ms),
        pseudo.KeyGranted(run=RUN, max=1, expires_ms=expires_ms),
        pseudo.KeyRefused(run="nightly-7"),
        pseudo.KeyRevoked(run=RUN),
    )
    return {type_of(type(event)): event for event in events}


def _key_messages() -> tuple[Message, ...]:
    own: dict[str, Any] = {"runid": KEY, "correlationid": KEY, "subject": f"key/{KEY}"}
    events = tuple(example_key_events().values())
    ask = pseudo.KeyAsk(run=RUN, max=1, on_excess="queue", expires_ms=NOON_MS + 86_400_000)
    return (
        message(pseudo.KeyDecided, pseudo.KeyDecision(version=1, at_ms=NOON_MS, events=events), **own),
        message(pseudo.KeyAsked, ask, **own),
        message(pseudo.KeyReleased, pseudo.KeyRelease(run=RUN), **own),
        message(ev.KeyAnswered, ev.KeyAnswer(key=KEY, granted=True)),
    )


def _breaker_messages() -> list[Any]:
    plain: dict[str, Any] = {"subject": "", "pipeline": "", "runid": "", "stepid": "", "attempt": 0}
    name = {"name": "openai-m-0a1b2c3d", "provider": "openai", "model": "m", "instance": "step-executor-1"}
    opened = ev.Breaker(**name, cause="timeout: no answer", due_ms=NOON_MS + 30_000, trips=1)
    return [
        message(ev.BreakerOpened, opened, **plain),
        message(ev.BreakerProbed, ev.Breaker(**name, cause="timeout: no answer", trips=1), **plain),
        message(ev.BreakerClosed, ev.Breaker(**name), **plain),
    ]


def _pseudo_messages() -> tuple[Message, ...]:
    own: dict[str, Any] = {"runid": SCHEDULE, "correlationid": SCHEDULE, "subject": f"schedule/{SCHEDULE}"}
    events = tuple(example_trigger_events().values())
    return (
        message(
            pseudo.TriggerDecided,
            pseudo.TriggerDecision(version=1, at_ms=NOON_MS, events=events, status="armed"),
            **own,
        ),
        message(pseudo.TriggerPauseRequested, pseudo.Wish(reason="maintenance"), **own),
        message(pseudo.TriggerResumeRequested, pseudo.Wish(reason="done"), **own),
        message(pseudo.TriggerBackfillRequested, pseudo.Span(from_ms=NOON_MS - 86_400_000, to_ms=NOON_MS), **own),
    )


def examples() -> dict[str, Any]:
    """All of the above."""
    made: dict[str, Any] = {**example_messages(), **example_events(), **example_trigger_events()}
    made |= example_key_events()
    missing = [type_of(kind) for kind in (*stored_types(), *inner_types()) if type_of(kind) not in made]
    assert not missing, f"no example of {missing}: add one to tests/builders.py"
    return made


def by_reference(data: bytes, *, run: str = RUN, **over: Any) -> Value:
    """A value that is held by reference."""
    fields: dict[str, Any] = {"ref": f"{run}/{DIGEST}", "size": len(data)} | over
    return Value(**fields)
