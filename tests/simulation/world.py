"""One simulation: hosts, a broker, a client that asks, faults for a while, then a healed world that must finish.

`simulate` runs a world from its seed to its end and gives everything that was recorded; `check` judges it.
"""

import asyncio
import contextvars
import hashlib
import logging
import random
import warnings
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.contracts import codec, ids, names, subjects
from headrace.contracts import commands as cmd
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.errors import RetryableError, UnknownOutcomeError
from headrace.runtime.eventlog import Stored
from headrace.runtime.lease import Leases
from headrace.runtime.streams import consumer_specs, stream_specs
from tests.simulation import answers, keys, processes, schedules, tellers
from tests.simulation.broker import Ack, SimServer
from tests.simulation.faults import START, Faults, drawn
from tests.simulation.host import Host, SimClock
from tests.simulation.loop import SimLoop
from tests.simulation.workload import Asked, Pipeline, asked, pipelines

TENANT: Final = names.TENANT_DEFAULT
PARTITIONS: Final = 8
"""Of 32 most would idle, at four times the cost; fewer meet more often."""
SCHEDULERS: Final = 2
EXECUTORS: Final = 2
LIVENESS_S: Final = 300.0
"""After the last fault every run must end within this: two sweeps, an ack_wait, attempts and their retries."""
LOOK_S: Final = 0.5
AFTER_S: Final = 1.5
"""What is late arrives before the history is taken."""
REAP_ROUNDS: Final = 30
ENDS: Final = ("run-completed", "run-failed", "run-cancelled")


@dataclass(slots=True)
class Record:
    """Everything that happened in a world."""

    seed: int
    faults: Faults
    asked: list[Asked]
    history: dict[str, list[Stored]]
    """Stream → messages in order."""
    calls: list[processes.Called]
    acks: list[Ack]
    disturbed: dict[str, list[tuple[float, float]]]
    """Host → when it was frozen."""
    unfinished: list[str]
    """Commands without an answer and runs that had not ended when time was up."""
    complaints: list[str]
    """Errors that the engine logged and that no fault explains."""
    overlooked: int
    steps: int
    virtual_s: float
    digest: str = ""


@dataclass(slots=True)
class World:
    """The moving parts of one simulation."""

    seed: int
    faults: Faults
    loop: SimLoop
    server: SimServer
    hosts: list[Host]
    client: Host
    outside: processes.Outside
    asked: list[Asked]
    quiet_s: float
    """When faults stop at the latest."""
    to_ask: int = 0
    unfinished: list[str] = field(default_factory=list)


def simulate(seed: int, *, faults: Faults | None = None, settled: bool = False, story: "Story | None" = None) -> Record:
    """Run a world.

    Args:
        faults: Instead of those that the seed draws.
        settled: Every hop takes the same time and callbacks keep their order: fewer choices, shorter stories.
        story: What happens, instead of: the client asks, faults strike for a while, everything must end.
    """
    world = build(seed, faults if faults is not None else drawn(seed), settled=settled)
    loop = world.loop
    asyncio.set_event_loop(None)
    with _partitions(PARTITIONS), _complaints(loop) as complaints:
        loop.run_until_complete(loop.create_task((story or _live)(world), context=contextvars.Context()))
        record = _record(world, list(complaints))
    with _partitions(PARTITIONS), _silence():
        for host in (*world.hosts, world.client):
            host.bury()
        loop.run_until_complete(loop.create_task(_reap(loop), context=contextvars.Context()))
        loop.close()
    return record


def build(seed: int, faults: Faults, *, settled: bool) -> World:
    """A world at its beginning."""
    draw = random.Random(f"world/{seed}")
    slow = draw.random() < 0.15
    shuffle = None if settled or draw.random() < 0.7 else random.Random(f"shuffle/{seed}")
    latency_s = (0.0005, 0.0005) if settled else (0.0005, 0.06) if slow else (0.0002, 0.003)
    loop = SimLoop(shuffle=shuffle)
    loop.set_exception_handler(_unhandled)
    server = SimServer(loop, SimClock(loop), faults, seed=seed, latency_s=latency_s)
    outside = processes.Outside(faults, [])

    def host(name: str, main: object, number: int) -> Host:
        clock = faults.at(name, "start", START)
        wall_error_s = clock.seconds if clock is not None else 0.0
        return Host(loop, server, name, main, seed=seed * 100 + number, wall_error_s=wall_error_s)  # type: ignore[arg-type]

    hosts = [host(f"scheduler-{n}", processes.scheduler, n) for n in range(SCHEDULERS)]
    hosts += [host(f"executor-{n}", processes.executor(outside), 10 + n) for n in range(EXECUTORS)]
    commands = [*asked(seed), *schedules.asked(seed), *keys.asked(seed), *answers.asked(seed), *tellers.asked(seed)]
    commands.sort(key=lambda command: (command.at_s, command.id))
    world = World(
        seed,
        faults,
        loop,
        server,
        hosts,
        Host(loop, server, "client", lambda one: _ask(world, one), seed=seed * 100 + 50, wall_error_s=0.0),
        outside,
        commands,
        draw.uniform(8.0, 22.0),
        to_ask=len(commands),
    )
    return world


# --- the story -------------------------------------------------------------------------------------------------------


Story = Callable[[World], Coroutine[Any, Any, None]]


def begin(world: World, known: Iterable[Pipeline]) -> None:
    """The broker has its streams, queues and these pipelines; all hosts but the client's start."""
    for stream in stream_specs():
        world.server.ensure_stream(stream)
    for consumer in consumer_specs({}):
        world.server.ensure_consumer(consumer)
    for pipeline in known:
        subject = subjects.blob(TENANT, f"{subjects.DEFINITION_ROOT}/{pipeline.digest}")
        world.server.publish(subject, pipeline.data, msg_id="", expected=None, headers={})
    for host in world.hosts:
        host.start()


def ask(world: World, asked: Asked) -> None:
    """A command is in the broker's hands."""
    subject = subjects.command(TENANT, asked.verb)
    world.server.publish(subject, _command(asked, world.seed), msg_id=asked.id, expected=None, headers={})


async def _live(world: World) -> None:
    loop = world.loop
    more = [one for one in (keys.chosen(world.seed), answers.chosen(world.seed)) if one is not None]
    begin(world, (*pipelines(), *more, *(tellers.definitions() if tellers.chosen(world.seed) else ())))
    if tellers.chosen(world.seed):
        subject = subjects.definition(TENANT, tellers.HEARER)
        world.server.publish(subject, tellers.registration(), msg_id="", expected=None, headers={})
    if kind := schedules.catch_up(world.seed):
        _deploy(world, kind)
    world.client.start()
    while loop.time() < world.quiet_s and (world.to_ask or unfinished(world)):
        await asyncio.sleep(LOOK_S)
    world.faults.active = False
    world.server.heal()
    for host in (*world.hosts, world.client):
        host.heal()
    until_s = loop.time() + LIVENESS_S
    world.unfinished = unfinished(world)
    while True:
        while world.unfinished and loop.time() < until_s:
            await asyncio.sleep(LOOK_S)
            world.unfinished = unfinished(world)
        await asyncio.sleep(AFTER_S)
        world.unfinished = unfinished(world)  # a schedule may have fired meanwhile: that is settled too
        if not world.unfinished or loop.time() >= until_s:
            return


def _deploy(world: World, kind: str) -> None:
    """A schedule that was deployed a while ago."""
    made = schedules.definition(kind)
    blob = subjects.blob(TENANT, f"{subjects.DEFINITION_ROOT}/{made.digest}")
    world.server.publish(blob, made.data, msg_id="", expected=None, headers={})
    subject = subjects.definition(TENANT, schedules.NAME)
    world.server.publish(subject, schedules.registration(kind), msg_id="", expected=None, headers={})


def unfinished(world: World) -> list[str]:
    """Commands that were not answered; runs that were asked for and have not ended, and runs that they started."""
    runs = world.server.streams["HR_RUNS_0"]
    known: dict[str, bool] = {one.run: False for one in world.asked if one.verb == "run-start"}
    for stored in runs.messages.values():
        place = subjects.parse_run_subject(stored.subject)
        if place is not None and place.kind == "decision" and not ids.PSEUDO_RE.fullmatch(place.run):
            known[place.run] = known.get(place.run, False) or place.rest in ENDS
    outcomes = world.server.streams[subjects.OUTCOMES].index
    unanswered = [one.id for one in world.asked if not outcomes.of_subject(subjects.outcome(TENANT, one.id))]
    unsettled = schedules.unsettled(list(runs.messages.values())) if schedules.catch_up(world.seed) else []
    kept = keys.held(list(runs.messages.values())) if keys.chosen(world.seed) else []
    unheard = tellers.unheard(list(runs.messages.values())) if tellers.chosen(world.seed) else []
    return [*unanswered, *(run for run, ended in known.items() if not ended), *unsettled, *kept, *unheard]


async def _ask(world: World, host: Host) -> None:
    """The client: sends each command when its time has come, until the broker has it."""
    for command in world.asked:
        await asyncio.sleep(max(0.0, command.at_s - world.loop.time()))
        if command.verb == "run-resume":
            await _answered(host, f"run-pause-{command.run}")
        body, subject = _command(command, world.seed), subjects.command(TENANT, command.verb)
        while True:
            try:
                await host.broker.append(subject, body, msg_id=command.id)
                break
            except (RetryableError, UnknownOutcomeError):
                await asyncio.sleep(0.1)
        world.to_ask -= 1
    await asyncio.Event().wait()


async def _answered(host: Host, command: str) -> None:
    """Commands have no order among each other: whoever wants one waits for the answer."""
    while True:
        try:
            if await host.broker.last(subjects.OUTCOMES, subjects.outcome(TENANT, command)) is not None:
                return
        except RetryableError:
            pass
        await asyncio.sleep(LOOK_S)


def _command(asked: Asked, seed: int) -> bytes:
    envelope = {
        "specversion": SPECVERSION,
        "id": asked.id,
        "source": "/simulation",
        "time": "",
        "schemaver": 1,
        "tenant": TENANT,
    }
    if asked.verb == "run-start":
        data = cmd.StartRun(pipeline=asked.pipeline, inputs=dict(asked.inputs), runid=asked.run)
        return codec.encode(cmd.RunStart(**envelope, data=data))  # type: ignore[arg-type]
    kind = cmd.VERBS[asked.verb]
    data: object
    match asked.verb:
        case "definition-put":
            digest = schedules.definition(schedules.catch_up(seed)).digest
            data = cmd.PutDefinition(pipeline=asked.pipeline, digest=digest, arm=True)
        case "trigger-backfill":
            data = cmd.BackfillTrigger(pipeline=asked.pipeline, **dict(asked.inputs))
        case "run-approve":
            data = answers.body(asked)
        case "run-signal":
            ((name, nth),) = asked.inputs
            data = cmd.SignalRun(runid=asked.run, name=name, payload={"nth": nth})
        case "run-rerun":
            data = cmd.RerunRun(runid=asked.run, step=asked.step, newid=asked.new_id)
        case "run-fork":
            data = cmd.ForkRun(runid=asked.run, step=asked.step, inputs=dict(asked.inputs), newid=asked.new_id)
        case "trigger-pause" | "trigger-resume":
            data = cmd.NameTrigger(pipeline=asked.pipeline)
        case _:
            data = cmd.NameRun(runid=asked.run)
    return codec.encode(kind(**envelope, data=data))  # type: ignore[arg-type]


async def _reap(loop: SimLoop) -> None:
    """Let every task end, so that nothing is left to the garbage collector."""
    me = asyncio.current_task()
    for _ in range(REAP_ROUNDS):
        tasks = sorted((task for task in asyncio.all_tasks(loop) if task is not me), key=hash)
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=20.0)
    msg = f"tasks that do not end: {[task.get_name() for task in tasks][:10]}"
    raise RuntimeError(msg)


# --- the record ------------------------------------------------------------------------------------------------------


def _record(world: World, complaints: list[str]) -> Record:
    history = {name: list(stream.messages.values()) for name, stream in world.server.streams.items()}
    for host in world.hosts:
        for error in host.ended:
            cause = error.__cause__ if error is not None else None
            if not isinstance(cause, RetryableError | UnknownOutcomeError | TimeoutError):
                complaints.append(f"{host.name} ended by itself: {error!r} from {cause!r}")
    record = Record(
        seed=world.seed,
        faults=world.faults,
        asked=world.asked,
        history=history,
        calls=list(world.outside.calls),
        acks=list(world.server.acks),
        disturbed={host.name: host.disturbed for host in world.hosts},
        unfinished=world.unfinished,
        complaints=complaints,
        overlooked=world.server.overlooked,
        steps=world.loop.steps,
        virtual_s=world.loop.time(),
    )
    record.digest = _digest(record)
    return record


def _digest(record: Record) -> str:
    """Equal for equal histories: every byte of every stream, and every call."""
    whole = hashlib.sha256()
    for name, messages in record.history.items():
        for stored in messages:
            whole.update(f"{name} {stored.seq} {stored.subject} {stored.time_ms} {stored.headers}".encode())
            whole.update(stored.body)
    for call in record.calls:
        whole.update(repr(call).encode())
    return whole.hexdigest()


@contextmanager
def _partitions(count: int) -> Iterator[None]:
    before, defaults = names.PARTITIONS, Leases.__init__.__kwdefaults__
    assert defaults is not None
    names.PARTITIONS = defaults["partitions"] = count  # type: ignore[misc]
    subjects.run_prefix.cache_clear()  # it names partitions, and ids of runs may be those of other tests
    try:
        yield
    finally:
        names.PARTITIONS = defaults["partitions"] = before  # type: ignore[misc]
        subjects.run_prefix.cache_clear()


class _Complaints(logging.Handler):
    """Errors in the engine's log whose exception is not one of those that faults cause."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__(logging.ERROR)
        self._loop = loop
        self.found: list[str] = []

    def emit(self, entry: logging.LogRecord) -> None:
        """See logging."""
        error = entry.exc_info[1] if entry.exc_info else None
        expected = (RetryableError, UnknownOutcomeError, TimeoutError)
        if error is None and entry.getMessage() not in ("run.stalled", "message.parked"):
            return
        if isinstance(error, expected) or isinstance(getattr(error, "__cause__", None), expected):
            return
        extra = {
            key: value for key, value in vars(entry).items() if key in ("run_id", "task", "why", "code", "subject")
        }
        self.found.append(f"at {self._loop.time():.3f} s {entry.getMessage()} {extra}: {error!r}")


@contextmanager
def _complaints(loop: SimLoop) -> Iterator[list[str]]:
    log, handler = logging.getLogger("headrace"), _Complaints(loop)
    before = log.level, log.propagate
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.ERROR)
    try:
        yield handler.found
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before
        log.setLevel(before[0])


@contextmanager
def _silence() -> Iterator[None]:
    """What processes say after the end of the world is of no interest."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # tasks that are cancelled before their first step
            yield
    finally:
        logging.disable(disabled)


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    error = context.get("exception")
    logging.getLogger("headrace").error(
        "loop.unhandled",
        extra={"why": str(context.get("message"))},
        exc_info=error if isinstance(error, Exception) else None,
    )
