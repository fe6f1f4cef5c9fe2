"""W1 (a chain of 100) and W3 (1,000 runs of 5 steps at once) beside the broker's floor, alternating, medians of three.

Last, the bytes a step takes on disk, at a volume at which they say something.

`python -m tests.benchmarks.run` prints a line a workload and writes `build/bench.json`. Absolute figures belong to the
machine and its neighbours; the ratio to the floor of the same minute is what can be compared.
"""

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from headrace.local.nats_server import NatsServer
from headrace.runtime.clock import SystemClock
from tests.benchmarks.floor import measure
from tests.chaos.cluster import RUNS, Cluster, once_each

REPETITIONS = 3
CHAIN_STEPS, RUNS_AT_ONCE, SHORT_STEPS = 100, 1_000, 5
DISK_RUNS = 4_000
"""48,000 messages are six blocks of the stream: of fewer, the block being written, not compressed yet, is most."""


def chain(steps: int) -> str:
    """A pipeline of sequential steps, each of which gives its input + 1."""
    lines = [f"  s{index:03}: {{tool: chaos.work, with: {{value: {_input(index)}}}}}" for index in range(steps)]
    output = f"outputs: {{r: '${{{{ steps.s{steps - 1:03}.output.value }}}}'}}"
    return "\n".join(["pipeline: chain", output, "steps:", *lines, ""])


def _input(index: int) -> str:
    return "1" if index == 0 else f"'${{{{ steps.s{index - 1:03}.output.value }}}}'"


async def floor(runs: int, steps: int) -> float:
    """Seconds of the raw loop, on a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder) / "nats", clock=SystemClock())
        await server.start()
        try:
            return await measure(server.url, runs=runs, steps=steps)
        finally:
            await server.stop()


async def engine(runs: int, steps: int) -> tuple[float, float]:
    """Seconds, and bytes a step on disk, the index included; scheduler and executor are processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        async with Cluster(Path(folder)) as cluster:
            cluster.spawn("scheduler")
            cluster.spawn("step-executor", CHAOS_LEDGER="")  # a step's body is an addition, no file
            await cluster.put(chain(steps))
            await cluster.start("chain", ["warm"])
            await cluster.until_completed(1, within_s=60)
            started = time.perf_counter()
            await cluster.start("chain", [f"r{number}" for number in range(runs)])
            await cluster.until_completed(runs + 1, within_s=180)
            seconds = time.perf_counter() - started
            messages = await cluster.messages()
            once_each(messages)
            if runs == 1:  # from the first decision to the last, without the submission
                seconds = _span_s([stored.time_ms for stored, message in messages if message.runid == "r0"])
            return seconds, _disk_bytes(Path(folder)) / ((runs + 1) * steps)


def _disk_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"nats/**/streams/{RUNS}/msgs/*"))


def _span_s(times_ms: list[int]) -> float:
    return (max(times_ms) - min(times_ms)) / 1000


async def main() -> None:
    """Measure, print, write."""
    figures: dict[str, dict[str, float]] = {}
    for name, runs, steps in (("w1", 1, CHAIN_STEPS), ("w3", RUNS_AT_ONCE, SHORT_STEPS)):
        floors, engines = [], []
        for _ in range(REPETITIONS):
            floors.append(await floor(runs, steps))
            engines.append((await engine(runs, steps))[0])
        ours, raw = statistics.median(engines), statistics.median(floors)
        total = runs * steps
        figures[name] = {
            "ms_per_step": ours / total * 1000,
            "steps_per_s": total / ours,
            "floor_ms_per_step": raw / total * 1000,
            "floor_steps_per_s": total / raw,
            "ratio": ours / raw,
        }
        print(name, json.dumps({key: round(value, 3) for key, value in figures[name].items()}), flush=True)
    _, bytes_per_step = await engine(DISK_RUNS, SHORT_STEPS)
    figures["disk"] = {"b_per_step": bytes_per_step}
    print("disk", json.dumps({"b_per_step": round(bytes_per_step)}), flush=True)
    _write(figures)


def _write(figures: dict[str, dict[str, float]]) -> None:
    target = Path("build/bench.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"d0": figures}, indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
