"""Pipelines run by the real scheduler and the real executor over the broker in memory, in virtual time: an hour costs
nothing, and nothing happens by chance.

`played` runs any number of scripts side by side in one world and gives what was seen of each. What steps call is here:
the tool `play.do` and the provider `play`, which do what their arguments say and are where calls are counted.
"""

import asyncio
import contextvars
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.contracts import codec, ids, subjects
from headrace.contracts import events as ev
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.envelope import SPECVERSION, ItemResult, Value
from headrace.pipeline.bundle import load_text
from headrace.runtime.blobs import MANIFEST_HEADER
from headrace.runtime.streams import consumer_specs
from headrace.runtime.supervisor import Supervisor
from headrace.runtime.values import foreach_output, item_refs
from headrace_step_executor.config import Config
from headrace_step_executor.parts import Surroundings, build_executor
from headrace_step_executor.providers.messages import TextPart
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse, OnDelta
from headrace_step_executor.tools.call import ToolCall, refuse, try_later
from tests.simulation import faults as f
from tests.simulation import processes
from tests.simulation.host import EPOCH_MS, Host
from tests.simulation.world import TENANT, Record, World, begin, simulate

RUNS: Final = "HR_RUNS_0"
BEGAN_S: Final = 2.0
"""When the first commands are sent: partitions have owners by then."""
ENDS_WITHIN_S: Final = 120.0
"""Virtual; no script waits for longer."""
LOOK_S: Final = 0.25
HANG_S: Final = 10.0**7
QUEUES: Final = ("llm", "tool", "transform", "tool-ws", "transform-ws", "llm-ws")
LABEL: Final = "gpu"
LABELLED: Final = "executor-0"
"""The one executor that serves queues with that label."""
LABELLED_QUEUES: Final = ("llm-gpu", "tool-gpu", "transform-gpu")
TERMINAL: Final = {
    ev.RunCompleted: "completed",
    ev.RunFailed: "failed",
    ev.RunCancelled: "cancelled",
}


@dataclass(slots=True, frozen=True)
class Act:
    """A command, `at_s` after the start was sent. `data` is its body; `runid` is the script's own unless given."""

    at_s: float
    verb: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Script:
    """A pipeline that is started once, and what else is asked meanwhile.

    Args:
        beside: Further pipelines, registered by their names before.
        starts: False: nobody starts it by command.
    """

    text: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    acts: tuple[Act, ...] = ()
    beside: tuple[str, ...] = ()
    starts: bool = True


@dataclass(slots=True, frozen=True)
class Kill:
    """kill -9 of a host, `at_s` after the first start was sent, and a new process there `restart_s` later."""

    at_s: float
    host: str
    restart_s: float


@dataclass(slots=True)
class Call:
    """A call of the outside world."""

    run: str
    path: str
    attempt: int
    args: Mapping[str, Any]
    key: str
    host: str
    began_s: float
    ended_s: float = 0.0
    """0 when it never came to its end."""


@dataclass(slots=True)
class Seen:
    """What is known of a run."""

    id: str
    messages: list[Any] = field(default_factory=list)
    events: list[tuple[float, ev.DecisionEvent]] = field(default_factory=list)
    """Every event that counts, with its virtual second, in order."""
    calls: list[Call] = field(default_factory=list)
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    outcomes: list[Any] = field(default_factory=list)
    """Answers to the script's acts, in their order."""

    @property
    def status(self) -> str:
        """How it ended."""
        return TERMINAL.get(type(self.events[-1][1]), "open") if self.events else "unknown"

    @property
    def end(self) -> Any:
        """Its last event."""
        return self.events[-1][1]

    @property
    def began_s(self) -> float:
        """When it was created."""
        return self.events[0][0]

    @property
    def took_s(self) -> float:
        """From its creation to its end."""
        return self.events[-1][0] - self.began_s

    @property
    def outputs(self) -> Any:
        """Of a completed run."""
        assert self.status == "completed", self.end
        return self.value(self.end.outputs)

    @property
    def failure(self) -> Any:
        """Of a failed run."""
        assert self.status == "failed", self.end
        return self.end.failure

    def of(self, kind: type[Any], path: str = "") -> list[Any]:
        """Events of a kind, of one step instance if it is named."""
        return [one for _, one in self.events if isinstance(one, kind) and path in ("", getattr(one, "path", ""))]

    def at_s(self, kind: type[Any], path: str = "") -> float:
        """When the first event of a kind was decided, counted from the run's creation."""
        return (
            next(at_s for at_s, one in self.events if isinstance(one, kind) and path in ("", getattr(one, "path", "")))
            - self.began_s
        )

    def step(self, path: str) -> str:
        """How a step instance ended; empty when it has not."""
        for kind, name in (
            (ev.StepCompleted, "succeeded"),
            (ev.StepFailed, "failed"),
            (ev.StepSkipped, "skipped"),
            (ev.StepCancelled, "cancelled"),
        ):
            if self.of(kind, path):
                return name
        return ""

    def error(self, path: str) -> str:
        """The code with which a step instance failed."""
        return str(self.of(ev.StepFailed, path)[-1].failure.code)

    def output(self, path: str) -> Any:
        """The output of a step instance that succeeded."""
        done = self.of(ev.StepCompleted, path)[-1]
        if done.output is not None:
            return self.value(done.output)
        report = next(one for one in self.messages if getattr(one, "id", "") == done.report)
        return self.value(report.data.output if isinstance(report, ev.AttemptSucceeded) else report.data.outputs)

    def called(self, path: str = "") -> list[Call]:
        """Calls of a step instance, or all."""
        return [call for call in self.calls if path in ("", call.path)]

    def in_flight_max(self) -> int:
        """How many calls were under way at once, at most, as the callee saw it."""
        return most_at_once(self.calls)

    def value(self, value: Value) -> Any:
        """The JSON of a value, wherever it is held."""
        data = self.blobs[value.ref] if value.ref else bytes(value.json)  # type: ignore[arg-type]  # one of the two
        if value.form == "items":
            results = msgspec.json.decode(data, type=tuple[ItemResult, ...])
            return foreach_output(results, {ref: json.loads(self.blobs[ref]) for ref in item_refs(results)})
        whole = json.loads(data)
        return whole[value.index] if value.index >= 0 else whole


def most_at_once(calls: Sequence[Call]) -> int:
    """The largest number of calls between whose begin and end there was an instant in common."""
    ends = sorted((one.ended_s or HANG_S) for one in calls)
    most = ended = 0
    for begun, call in enumerate(sorted(calls, key=lambda one: one.began_s), start=1):
        while ended < len(ends) and ends[ended] <= call.began_s:
            ended += 1
        most = max(most, begun - ended)
    return most


class Outside:
    """What steps call. Arguments say what happens; every call is remembered."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._tallies: Counter[str] = Counter()

    async def do(self, host: Host, call: Call, args: Mapping[str, Any]) -> Any:
        """Take `ms`; crash in the first `crash` calls, hang in the first `hang`, fail in the first `fail` with `code`;
        then give `give`, or an integer of so many `bits`. `fatal`: the failure is for good. Calls are counted by
        `tally`, which is the step instance unless given."""
        self.calls.append(call)
        tally = args.get("tally", call.key)
        self._tallies[tally] += 1
        nth = self._tallies[tally]
        await host.clock.sleep(args.get("ms", 0) / 1000)
        if nth <= args.get("crash", 0):
            host.crash(restart_s=1.0)
            await host.clock.sleep(HANG_S)
        if nth <= args.get("hang", 0):
            await host.clock.sleep(HANG_S)
        call.ended_s = host.loop.time()
        if nth <= args.get("fail", 0):
            raise try_later(args.get("code", "unavailable"), "as asked")
        if args.get("fatal"):
            raise refuse(args.get("code", "refused"), "as asked")
        if "bits" in args:
            return 2 ** args["bits"]
        return args.get("give")

    def tool(self, host: Host) -> Any:
        """`play.do` as one host has it. `write: {path: text}` writes files of the workspace first."""

        async def play(given: ToolCall) -> Any:
            call = Call(given.run, given.path, given.attempt, given.args, given.key, host.name, host.loop.time())
            for path, text in given.args.get("write", {}).items():
                given.workspace.write(path, text.encode())
            return await self.do(host, call, given.args)

        return play


@dataclass(slots=True, frozen=True)
class PlayProvider:
    """The provider `play`: gives the last message back as text; `options` are as the arguments of `play.do`."""

    outside: Outside
    host: Host

    async def generate(
        self, request: GenerateRequest, *, deadline_s: float, on_delta: OnDelta | None = None
    ) -> GenerateResponse:
        """See Provider."""
        seen = {"messages": [[one.role, one.said] for one in request.messages], "model": request.model}
        seen |= {"max_tokens": request.max_tokens, "temperature": request.temperature, "options": request.options}
        run, _, path = request.key.partition("/")
        call = Call(run, path, request.attempt, seen, request.key, self.host.name, self.host.loop.time())
        await self.outside.do(self.host, call, request.options)
        return GenerateResponse(
            parts=(TextPart(text=request.messages[-1].said),),
            model=f"play/{request.model}",
            finish_reason="stop",
            usage=ev.Usage(input_tokens=3, output_tokens=2, model=f"play/{request.model}"),
        )


def executor(outside: Outside, folder: Path | None) -> Any:
    """An executor's process over this outside."""

    async def main(host: Host) -> None:
        queues = (*QUEUES, *LABELLED_QUEUES) if host.name == LABELLED else QUEUES
        config = (
            Config(queues=queues) if folder is None else Config(queues=queues, data_dir=folder, read_roots=(folder,))
        )
        supervisor = Supervisor(host.clock)
        around = Surroundings(tools={"play.do": outside.tool(host)}, providers={"play": PlayProvider(outside, host)})
        service = build_executor(
            host.broker,
            supervisor,
            clock=host.clock,
            entropy=host.entropy,
            instance=host.instance,
            config=config,
            around=around,
        )
        host.service = service
        async with supervisor:
            await service.start()
            await asyncio.Event().wait()

    return main


# --- the story -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Play:
    scripts: Mapping[str, Script]
    outside: Outside
    folder: Path | None
    executors: int
    schedulers: int = 1
    kills: tuple[Kill, ...] = ()
    ids: dict[str, list[str]] = field(default_factory=dict)
    digests: set[str] = field(default_factory=set)
    commands: int = 0

    async def story(self, world: World) -> None:
        """All scripts, from their definitions to their ends."""
        loop, server = world.loop, world.server
        mains = [processes.scheduler] * self.schedulers + [executor(self.outside, self.folder)] * self.executors
        names = [f"scheduler-{number}" for number in range(self.schedulers)]
        names += [f"executor-{number}" for number in range(self.executors)]
        world.asked = []
        world.hosts = [
            Host(loop, server, name, main, seed=number, wall_error_s=0.0)
            for number, (name, main) in enumerate(zip(names, mains, strict=True))
        ]
        begin(world, [])
        for spec in consumer_specs(dict.fromkeys(LABELLED_QUEUES, 100)):
            server.ensure_consumer(spec)
        await asyncio.sleep(BEGAN_S)
        for text in dict.fromkeys(text for script in self.scripts.values() for text in (*script.beside, script.text)):
            self._register(world, text)
        await asyncio.sleep(1.0)
        for run, script in self.scripts.items():
            self.ids[run] = []
            if script.starts:
                name = load_text(script.text).plan
                data = {"pipeline": f"{name.pipeline}@{name.digest}", "inputs": dict(script.inputs), "runid": run}
                self._send(world, "run-start", data, f"start-{run}")
            for number, act in enumerate(script.acts):
                about = {} if act.verb.startswith(("definition", "trigger", "hr.")) else {"runid": run}
                self.ids[run].append(f"act-{run}-{number}")
                send = partial(self._send, world, act.verb, {**about, **act.data}, f"act-{run}-{number}")
                loop.call_later(act.at_s, send)
        hosts = {host.name: host for host in world.hosts}
        for kill in self.kills:
            crash = partial(hosts[kill.host].crash, restart_s=kill.restart_s)
            loop.call_later(kill.at_s, crash, context=contextvars.Context())
        last_s = loop.time() + max((act.at_s for script in self.scripts.values() for act in script.acts), default=0.0)
        while (self._open(world) or loop.time() < last_s) and loop.time() < ENDS_WITHIN_S:
            await asyncio.sleep(LOOK_S)
        world.unfinished = self._open(world)
        await asyncio.sleep(2.0)

    def _register(self, world: World, text: str) -> None:
        bundle = load_text(text)
        for data in (bundle.data, *bundle.children.values()):
            digest = sha256_hex(data)
            if digest not in self.digests:
                self.digests.add(digest)
                subject = subjects.blob(TENANT, f"{subjects.DEFINITION_ROOT}/{digest}")
                world.server.publish(subject, data, msg_id="", expected=None, headers={})
        body = {"pipeline": bundle.plan.pipeline, "digest": bundle.digest, "arm": True}
        self._send(world, "definition-put", body, f"put-{bundle.digest[:16]}")

    def _send(self, world: World, verb: str, data: Mapping[str, Any], command: str) -> None:
        subject = subjects.command(TENANT, verb)
        if verb.startswith("hr."):
            subject, body = verb, {"id": command, "specversion": SPECVERSION, "data": dict(data)}
        else:
            body = {"id": command, "specversion": SPECVERSION, "data": dict(data)}
        world.server.publish(subject, json.dumps(body).encode(), msg_id=command, expected=None, headers={})

    def _open(self, world: World) -> list[str]:
        ends = ("run-completed", "run-failed", "run-cancelled")
        ended: dict[str, bool] = {run: False for run, script in self.scripts.items() if script.starts}
        for stored in world.server.streams[RUNS].messages.values():
            place = subjects.parse_run_subject(stored.subject)
            if place is not None and place.kind == "decision" and not ids.PSEUDO_RE.fullmatch(place.run):
                ended[place.run] = ended.get(place.run, False) or place.rest in ends
        answers = world.server.streams[subjects.OUTCOMES].index
        refused = {
            run for run in self.scripts if run in ended and not ended[run]
            and any(_is_refused(world, seq) for seq in answers.of_subject(subjects.outcome(TENANT, f"start-{run}")))
        }  # fmt: skip
        return [run for run, done in ended.items() if not done and run not in refused]


def _is_refused(world: World, seq: int) -> bool:
    return isinstance(codec.decode(world.server.streams[subjects.OUTCOMES].messages[seq].body), ev.CommandRefused)


def played(
    scripts: Mapping[str, Script],
    *,
    folder: Path | None = None,
    executors: int = 1,
    schedulers: int = 1,
    kills: tuple[Kill, ...] = (),
) -> dict[str, Seen]:
    """Run id → what was seen of it; also of runs that others started, by their own ids.

    Args:
        folder: Where workspaces lie, and what steps may read.
        executors: How many there are; likewise schedulers.
        kills: Which of them die, and when.
    """
    for text in dict.fromkeys(text for script in scripts.values() for text in (*script.beside, script.text)):
        load_text(text)  # what is refused is refused before there is a world
    outside = Outside()
    play = _Play(scripts, outside, folder, executors, schedulers, kills)
    record = simulate(1, faults=f.listed({}), settled=True, story=play.story)
    assert not record.complaints, record.complaints
    assert not record.unfinished, record.unfinished
    return _seen(record, play)


def _seen(record: Record, play: _Play) -> dict[str, Seen]:
    blobs = _blobs(record)
    found: dict[str, Seen] = {run: Seen(run, blobs=blobs) for run in play.scripts}
    versions: dict[str, int] = {}
    for stored in record.history[RUNS]:
        message = codec.decode(stored.body)
        if not isinstance(message, ev.RunMessage):
            continue
        seen = found.setdefault(message.runid, Seen(message.runid, blobs=blobs))
        seen.messages.append(message)
        if isinstance(message, ev.RunDecided) and message.data.version == versions.get(message.runid, 0) + 1:
            versions[message.runid] = message.data.version
            at_s = (message.data.at_ms - EPOCH_MS) / 1000
            seen.events += [(at_s, event) for event in message.data.events]
    answers: dict[str, Any] = {}
    for stored in record.history[subjects.OUTCOMES]:
        message = codec.decode(stored.body)
        answers.setdefault(message.causationid, message)
    for run, commands in play.ids.items():
        found[run].outcomes = [answers.get(one) for one in commands]
        if not found[run].events:
            found[run].outcomes.insert(0, answers.get(f"start-{run}"))
    for call in play.outside.calls:
        found[call.run].calls.append(call)
    return found


def _blobs(record: Record) -> dict[str, bytes]:
    """Every blob by its reference, whole."""
    stored = {one.subject: one for one in record.history[subjects.BLOBS]}
    found = {}
    for subject, one in stored.items():
        tokens = subject.split(".")
        if len(tokens) != 5:
            continue
        body = one.body
        if MANIFEST_HEADER in one.headers:
            body = b"".join(stored[f"{subject}.{number}"].body for number in range(int(one.headers[MANIFEST_HEADER])))
        found[f"{tokens[3]}/{tokens[4]}"] = body
    return found


def one(text: str, inputs: Mapping[str, Any] | None = None, **more: Any) -> Seen:
    """A single script's run."""
    world = {name: more.pop(name) for name in ("folder", "executors", "schedulers", "kills") if name in more}
    return played({"r": Script(text, inputs or {}, **more)}, **world)["r"]
