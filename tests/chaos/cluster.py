"""A real cluster on one machine: nats-server, schedulers and executors as processes of their own, and their fate."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.contracts import codec, subjects
from headrace.contracts import events as ev
from headrace.contracts.live import Beat
from headrace.local.nats_server import NatsServer
from headrace.pipeline.bundle import load_text
from headrace.runtime import blobs
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import BusMessage, Stored, Tail
from headrace.runtime.jetstream import JetStreamBroker, connect
from headrace.runtime.lease import Claim
from headrace.runtime.streams import migrate
from tests.chaos.tools import CATALOGUE
from tests.conftest import until

RUNS = subjects.runs_stream(0)
ENDS = ("run-completed", "run-failed", "run-cancelled")
STARTED_S = 60
"""Until a scheduler is there: five processes start at once, on a machine that may have other work."""


@dataclass(slots=True)
class Process:
    """One service's process. Ended by its recorded pid alone."""

    kind: str
    popen: "subprocess.Popen[bytes]"
    log: Path

    def kill(self) -> None:
        """SIGKILL: nothing it has in memory survives."""
        self.popen.kill()
        self.popen.wait(10)

    def stop(self) -> None:
        """SIGSTOP: it keeps its memory and its connection and does nothing."""
        os.kill(self.popen.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT: the zombie wakes."""
        os.kill(self.popen.pid, signal.SIGCONT)

    @property
    def alive(self) -> bool:
        """It has not ended."""
        return self.popen.poll() is None

    @property
    def instance(self) -> str:
        """Its name, from its first log line; empty before that."""
        for line in self.log.read_text().splitlines():
            if '"instance":"' in line:
                return line.split('"instance":"')[1].split('"')[0]
        return ""


@dataclass(slots=True)
class Cluster:
    """Use as `async with Cluster(path) as cluster`."""

    path: Path
    server: NatsServer = field(init=False)
    broker: JetStreamBroker = field(init=False)
    processes: list[Process] = field(default_factory=list)
    clock: SystemClock = field(default_factory=SystemClock)
    _tails: dict[str, Tail] = field(default_factory=dict)
    _ended: Counter[str] = field(default_factory=Counter)
    beats: dict[str, Beat] = field(default_factory=dict)
    """Last sign of life by instance."""
    held: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """(run, step) in each executor's hands, by its own word."""

    async def __aenter__(self) -> "Cluster":
        self.path.mkdir(parents=True, exist_ok=True)
        self.server = NatsServer(self.path / "nats", clock=self.clock)
        await self.server.start()
        self.broker = await connect(self.server.url, name="chaos", clock=self.clock)
        await migrate(self.broker)
        await self.broker.subscribe(subjects.PRESENCE_ALL, self._hear)
        return self

    async def _hear(self, message: BusMessage) -> None:
        beat = codec.decode_as(Beat, message.body)
        self.beats[beat.instance] = beat
        held = self.held.setdefault(beat.instance, set())
        if beat.full is not None:
            held.clear()
        held |= {(one.run, one.path) for one in (*beat.taken, *(beat.full or ()))}
        held -= {(one.run, one.path) for one in beat.finished}

    def is_ready(self, process: Process) -> bool:
        """It says so itself."""
        beat = self.beats.get(process.instance)
        return beat is not None and beat.ready

    async def __aexit__(self, *_: object) -> None:
        for process in self.processes:
            if process.alive:
                process.kill()
        await self.broker.close()
        await self.server.stop()

    def spawn(self, kind: str, **environ: str) -> Process:
        """Start a `scheduler` or a `step-executor`."""
        log = self.path / f"{kind}-{len(self.processes)}.log"
        env = os.environ | {
            "HEADRACE_NATS_URL": self.server.url,
            "HEADRACE_DATA_DIR": str(self.path / "data"),
            "CHAOS_LEDGER": str(self.path / "ledger"),
        }
        with log.open("ab") as out:
            popen = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.worker", kind], env=env | environ, stdout=out, stderr=out
            )
        process = Process(kind, popen, log)
        self.processes.append(process)
        return process

    async def put(self, text: str) -> str:
        """Register a pipeline that uses the chaos tools; gives its name."""
        bundle = load_text(text, catalogue=CATALOGUE)
        await blobs.put(self.broker, "default", subjects.DEFINITION_ROOT, bundle.data)
        body = json.dumps({"pipeline": bundle.plan.pipeline, "digest": bundle.digest}).encode()
        await self.broker.append("hr.cmd.default.definition-put", body, msg_id=f"put-{bundle.digest[:20]}")
        subject = subjects.outcome("default", f"put-{bundle.digest[:20]}")

        async def answered() -> Any:
            return await self.broker.last(subjects.OUTCOMES, subject)

        await until(answered, within_s=STARTED_S, what="definition-put")
        return bundle.plan.pipeline

    async def start(self, pipeline: str, runs: Iterable[str], **inputs: Any) -> None:
        """Start runs, without waiting for their acceptance."""
        futures = []
        for run in runs:
            body = json.dumps({"pipeline": pipeline, "runid": run, "inputs": inputs}).encode()
            futures.append(await self.broker.publish("hr.cmd.default.run-start", body, msg_id=f"start-{run}"))
        async with asyncio.timeout(30):
            await asyncio.gather(*futures)

    async def ended(self) -> Counter[str]:
        """How many runs have ended, by how. Reads what is new, so that watching costs the server nothing."""
        for end in ENDS:
            if end not in self._tails:
                filters = (f"hr.evt.*.*.*.*.decision.{end}",)
                self._tails[end] = await self.broker.tail(RUNS, filters, start_seq=1)
            while batch := await self._tails[end].batch(max_count=1000, wait_s=0.01):
                self._ended[end] += len(batch)
        return self._ended

    async def until_completed(self, runs: int, *, within_s: float) -> None:
        """All runs completed; anything else is shown."""

        async def all_there() -> bool:
            return (await self.ended())["run-completed"] >= runs

        try:
            await until(all_there, within_s=within_s, what="completed runs")
        except BaseException:
            await self._explain()
            raise

    async def _explain(self) -> None:
        """What a run that has not ended waits for: who owns its partition, what was said last, what is in hands."""
        print("ended:", self._ended, {process.log.name: process.alive for process in self.processes})
        print("owners:", Counter((await self.owners()).values()), "living:", sorted(self.beats))
        last: dict[str, tuple[Stored, ev.StoredMessage]] = {}
        for stored, message in await self.messages():
            last[message.runid] = stored, message
        for run, (stored, message) in last.items():
            if not stored.subject.endswith(ENDS):
                hands = [instance for instance, held in self.held.items() if any(key[0] == run for key in held)]
                print(f"  {run}: {stored.subject} at {stored.seq}, {stored.time_ms}: {message}"[:600], "held by", hands)
        for queue in (subjects.order_consumer("tool"), subjects.order_consumer("transform")):
            print(queue, await self.broker.consumer_state(RUNS, queue))
        print("intake", await self.broker.consumer_state(subjects.COMMANDS, subjects.INTAKE_CONSUMER))

    async def owners(self) -> dict[int, str]:
        """Partition → instance that holds its claim."""
        return {part: holder for part, (holder, _) in (await self.claims()).items()}

    async def claims(self) -> dict[int, tuple[str, int]]:
        """Partition → (instance that holds its claim, since when by the broker's clock)."""
        found: dict[int, tuple[str, int]] = {}
        async for stored in self.broker.read(subjects.LEASES, (subjects.kv(subjects.LEASES, "claim.*"),)):
            holder = codec.decode_as(Claim, stored.body).holder
            found[int(stored.subject.rpartition(".")[2])] = holder, stored.time_ms
        return found

    async def answered_ms(self) -> dict[str, int]:
        """Command → when its outcome was stored."""
        return {
            stored.subject.rpartition(".")[2]: stored.time_ms
            async for stored in self.broker.read(subjects.OUTCOMES, ("hr.outcome.>",))
        }

    async def messages(self) -> list[tuple[Stored, ev.StoredMessage]]:
        """The whole history, in order."""
        return [(stored, codec.decode(stored.body)) async for stored in self.broker.read(RUNS, ("hr.evt.>",))]

    def calls(self) -> Counter[str]:
        """External calls that began, by `run/step`."""
        ledger = self.path / "ledger"
        return Counter(ledger.read_text().split()) if ledger.exists() else Counter()


def once_each(messages: list[tuple[Stored, ev.StoredMessage]]) -> Counter[tuple[str, str]]:
    """Check the history of every run; gives how often each step instance was completed: once.

    Decisions have versions 1, 2, 3 … (a lost race is ignored by every reader, and must not be told apart by luck),
    nothing follows a run's end, and each end of a step names the attempt that was current.
    """
    versions: dict[str, int] = {}
    current: dict[tuple[str, str], int] = {}
    ends: Counter[tuple[str, str]] = Counter()
    over: set[str] = set()
    for stored, message in messages:
        if not isinstance(message, ev.RunDecided) or message.data.version != versions.get(message.runid, 0) + 1:
            continue
        run = message.runid
        assert run not in over, f"decision {message.data.version} at {stored.seq} follows the end of {run}"
        versions[run] = message.data.version
        for event in message.data.events:
            if isinstance(event, ev.StepScheduled):
                assert event.attempt == current.get((run, event.path), 0) + 1, (stored.seq, event)
                assert ends[(run, event.path)] == 0, f"{run}/{event.path} scheduled after its end, at {stored.seq}"
                current[(run, event.path)] = event.attempt
            elif isinstance(event, ev.ScopeStarted):
                assert event.attempt == current.get((run, event.path), 0) + 1, (stored.seq, event)
                assert ends[(run, event.path)] == 0, f"{run}/{event.path} entered after its end, at {stored.seq}"
                current[(run, event.path)] = event.attempt
            elif isinstance(event, ev.StepCompleted | ev.StepFailed | ev.StepSkipped | ev.StepCancelled):
                ends[(run, event.path)] += 1
                attempt = getattr(event, "attempt", 0)
                assert attempt in (0, current.get((run, event.path), 0)), (stored.seq, event)
            elif isinstance(event, ev.RunCompleted | ev.RunFailed | ev.RunCancelled):
                over.add(run)
    assert all(count == 1 for count in ends.values()), {key: count for key, count in ends.items() if count != 1}
    return ends
