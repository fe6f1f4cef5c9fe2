"""What a large run costs: a graph of 10,000 steps beside one of 100, a map of 100,000 items beside one of 1,000.

`python -m tests.benchmarks.scale` measures the scheduler's pure core by CPU time, and compares within one process: the
ratios are what counts. `python -m tests.benchmarks.scale cluster 100000` runs the map with a real scheduler, two
executors and a nats-server, and reads the scheduler's greatest resident size from /proc; `children` after the number
makes each item a child run.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from headrace.pipeline.bundle import load_text
from headrace.pipeline.plan import Plan
from tests.benchmarks.core import Cost, measure
from tests.chaos.cluster import Cluster
from tests.chaos.tools import CATALOGUE

STEPS, FEW_STEPS = 10_000, 100
CHAIN_STEPS = 6_000
"""A longer one with an argument a step has more nodes than a file may have."""
ITEMS, FEW_ITEMS = 100_000, 1_000
GROUPS, FEW_GROUPS = 10_000, 500
PARALLEL = 50
RATIO_MAX = 1.3
RSS_MAX_BYTES = 400 * 1024 * 1024
ROUNDS = 3
CLUSTER_WITHIN_S = 3_000


def wide(steps: int) -> str:
    """Steps that need nothing, so that all but a few stand in line."""
    return "\n".join(["pipeline: wide", "steps:", *[f"  s{n:05}: {{tool: chaos.work}}" for n in range(steps)], ""])


def chain(steps: int) -> str:
    """Each step reads the one before."""
    values = ["1", *[f"'${{{{ steps.s{n:05}.output.value }}}}'" for n in range(steps - 1)]]
    lines = [f"  s{n:05}: {{tool: chaos.work, with: {{value: {value}}}}}" for n, value in enumerate(values)]
    return "\n".join(["pipeline: chain", "steps:", *lines, ""])


TOOL = "tool: chaos.work, with: {value: '${{ item }}'}"
GROUP = f"steps: {{a: {{{TOOL}}}, b: {{tool: chaos.work, with: {{value: '${{{{ steps.a.output.value }}}}'}}}}}}"
CHILD = "pipeline: kid, with: {v: '${{ item }}'}"
KID = """pipeline: kid
inputs: {v: {type: integer}}
steps: {a: {tool: chaos.work, with: {value: '${{ inputs.v }}'}}}
"""


def mapped(kind: str = TOOL) -> str:
    """A map whose output is read as a whole."""
    return f"""pipeline: mapped
limits: {{max_parallel: {PARALLEL}}}
inputs: {{xs: {{type: array}}}}
outputs: {{counts: '${{{{ steps.each.output.counts }}}}'}}
steps:
  each: {{foreach: inputs.xs, max_parallel: {PARALLEL}, {kind}}}
"""


def loaded(text: str) -> tuple[Plan, float]:
    """The plan, and the CPU time of checking and compiling it."""
    began = time.process_time()
    return load_text(text, catalogue=CATALOGUE).plan, time.process_time() - began


def graphs(shape: Any, few: int, many: int, *, rounds: int = ROUNDS) -> dict[str, float]:
    """Microseconds a step of a small and of a large graph, the best of alternating rounds, and their ratio."""
    small, large = loaded(shape(few)), loaded(shape(many))
    costs: list[tuple[Cost, Cost]] = []
    for _ in range(rounds):
        few_again = [measure(small[0]) for _ in range(max(1, many // few // 10))]
        costs.append((min(few_again, key=lambda cost: cost.us_per_step), measure(large[0], snapshots=many // 2)))
    of_few, of_many = (min(pair[which].us_per_step for pair in costs) for which in (0, 1))
    return {
        "few_us": of_few,
        "many_us": of_many,
        "ratio": of_many / of_few,
        "load_few_us": small[1] / few * 1e6,
        "load_many_us": large[1] / many * 1e6,
        "snapshot_bytes": costs[-1][1].snapshot_bytes,
        "snapshot_ms": costs[-1][1].snapshot_s * 1e3,
    }


def maps(few: int, many: int, kind: str = TOOL) -> dict[str, float]:
    """As `graphs`, of items of a map. The list is the run's input."""
    plan, _ = loaded(mapped(kind))
    first = measure(plan, {"xs": [0] * few})
    large = measure(plan, {"xs": [0] * many}, snapshots=max(1, many // 10))
    small = min(first, measure(plan, {"xs": [0] * few}), key=lambda cost: cost.us_per_step)
    return {
        "few_us": small.us_per_step,
        "many_us": large.us_per_step,
        "ratio": large.us_per_step / small.us_per_step,
        "snapshot_bytes": large.snapshot_bytes,
        "snapshot_ms": large.snapshot_s * 1e3,
    }


async def cluster(items: int, *, children: bool) -> dict[str, float]:
    """The map over a real cluster: seconds, and the scheduler's greatest resident size."""
    with tempfile.TemporaryDirectory() as folder:
        async with Cluster(Path(folder)) as rig:
            scheduler = rig.spawn("scheduler")
            for _ in range(2):
                rig.spawn("step-executor", CHAOS_LEDGER="")
            await rig.put(KID)
            await rig.put(mapped(CHILD if children else TOOL))
            before = resident_bytes(scheduler.popen.pid)
            began = time.monotonic()
            await rig.start("mapped", ["r1"], xs=[0] * items)
            await rig.until_completed(1 + items * children, within_s=CLUSTER_WITHIN_S)
            seconds = time.monotonic() - began
            peak, cpu_s = resident_bytes(scheduler.popen.pid), cpu_seconds(scheduler.popen.pid)
    return {"items": items, "seconds": seconds, "cpu_s": cpu_s, "rss_before": before, "rss_peak": peak}


def resident_bytes(pid: int) -> int:
    """The greatest resident size that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, in user mode and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> int:
    """Measure, print; 1 when a bound is broken."""
    if sys.argv[1:2] == ["cluster"]:
        items = int(sys.argv[2]) if len(sys.argv) > 2 else ITEMS
        figures = asyncio.run(cluster(items, children="children" in sys.argv[3:]))
        print("cluster", json.dumps({key: round(value, 1) for key, value in figures.items()}))
        return int(figures["rss_peak"] > RSS_MAX_BYTES)
    found = {
        "wide": graphs(wide, FEW_STEPS, STEPS),
        "chain": graphs(chain, FEW_STEPS, CHAIN_STEPS),
        "foreach": maps(FEW_ITEMS, ITEMS),
        "groups": maps(FEW_GROUPS, GROUPS, GROUP),
    }
    for name, row in found.items():
        print(name, json.dumps({key: round(value, 3) for key, value in row.items()}), flush=True)
    return int(any(row["ratio"] > RATIO_MAX for row in found.values()))


if __name__ == "__main__":
    sys.exit(main())
