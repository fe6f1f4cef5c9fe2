"""The floor: the same messages over raw nats-py, with nothing decided, folded, rendered or reported in between.

Two processes and a nats-server, as the engine has. One plays the scheduler: it appends a decision of realistic size
with the expected-sequence check, hears the report by a pull, appends the next. The other plays the executor: pulls
decisions, appends a report, acknowledges. Two stored messages and two hops a step, like the engine's own chain.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

STREAM = "FLOOR"
DECISION_BYTES, REPORT_BYTES = 1_300, 650
"""Measured on the engine's own W3 messages."""


class Publisher:
    """Appends with one inbox for all acknowledgements: what nats-py's own `js.publish` costs four times as much for."""

    def __init__(self, nc: Client) -> None:
        self._nc, self._waiting, self._numbers = nc, {}, itertools.count()

    async def start(self) -> "Publisher":
        self._prefix = self._nc.new_inbox() + "."
        await self._nc.subscribe(self._prefix + "*", cb=self._acknowledged)
        return self

    async def _acknowledged(self, message: Msg) -> None:
        future = self._waiting.pop(message.subject[len(self._prefix) :])
        answer = json.loads(message.data)
        if "error" in answer:
            future.set_exception(RuntimeError(answer["error"]["description"]))
        else:
            future.set_result(answer["seq"])

    async def publish(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> "asyncio.Future[int]":
        number = str(next(self._numbers))
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._nc.publish(subject, body, reply=self._prefix + number, headers=headers)
        return future


async def pull(nc: Client, durable: str, handle: Callable[[Msg], "asyncio.Future[None]"], batch: int = 256) -> None:
    """Pull for ever, always half a batch ahead."""
    inbox, left = nc.new_inbox(), [batch]
    ask = json.dumps({"batch": batch, "expires": 30_000_000_000}).encode()
    next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{durable}"

    async def received(message: Msg) -> None:
        if not message.reply:
            return
        left[0] -= 1
        if left[0] <= batch // 2:
            left[0] += batch
            await nc.publish(next_subject, ask, reply=inbox)
        await handle(message)

    await nc.subscribe(inbox, cb=received)
    await nc.publish(next_subject, ask, reply=inbox)


async def executor(url: str) -> None:
    """Report every decision, then acknowledge it."""
    nc = await nats.connect(url)
    publisher = await Publisher(nc).start()
    body = b"r" * REPORT_BYTES

    async def handle(message: Msg) -> None:
        run = message.subject.split(".")[1]
        future = await publisher.publish(f"floor.{run}.report", body, {"Nats-Msg-Id": f"r{message.reply}"})
        future.add_done_callback(lambda _: asyncio.get_running_loop().create_task(nc.publish(message.reply, b"+ACK")))

    await pull(nc, "EXEC", handle)
    await asyncio.Event().wait()


async def measure(url: str, *, runs: int, steps: int) -> float:
    """Seconds for `runs` chains of `steps` steps at once."""
    nc = await nats.connect(url)
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name=STREAM, subjects=["floor.>"]))
    for durable, subject in (("EXEC", "floor.*.decision"), ("TAIL", "floor.*.report")):
        await js.add_consumer(STREAM, durable_name=durable, filter_subject=subject, ack_policy=_policy(durable))
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.benchmarks.floor", url)
    publisher = await Publisher(nc).start()
    body, done, finished = b"d" * DECISION_BYTES, dict.fromkeys(map(str, range(runs)), 0), asyncio.Event()
    stored: dict[str, asyncio.Future[int]] = {}
    left = [runs]

    async def decide(run: str) -> None:
        # A report may be heard before the decision's own acknowledgement; the next decision needs its sequence.
        expected = await stored[run] if run in stored else 0
        headers = {
            "Nats-Msg-Id": f"d{run}-{done[run]}",
            "Nats-Expected-Last-Subject-Sequence": str(expected),
            "Nats-Expected-Last-Subject-Sequence-Subject": f"floor.{run}.decision",
        }
        stored[run] = await publisher.publish(f"floor.{run}.decision", body, headers)

    async def heard(message: Msg) -> None:
        run = message.subject.split(".")[1]
        done[run] += 1
        if done[run] < steps:
            await decide(run)
        else:
            left[0] -= 1
            if left[0] == 0:
                finished.set()

    await pull(nc, "TAIL", heard)
    await asyncio.sleep(1.0)  # the child's start is not what is measured
    started = time.perf_counter()
    for run in done:
        await decide(run)
    try:
        async with asyncio.timeout(120):
            await finished.wait()
        return time.perf_counter() - started
    finally:
        child.kill()
        await child.wait()
        await js.delete_stream(STREAM)
        await nc.close()


def _policy(durable: str) -> str:
    return "explicit" if durable == "EXEC" else "none"


if __name__ == "__main__":
    asyncio.run(executor(sys.argv[1]))
