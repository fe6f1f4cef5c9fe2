"""Run seeds: `python -m tests.simulation.run --seeds 2000`, or one of them: `--seed 4711 [--shrink]`, or a kept plan.

Prints one JSON line of figures. A failure prints its seed, its plan and the command that repeats it, and exits with 1.
"""

import argparse
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.simulation import faults as f
from tests.simulation import mutants
from tests.simulation.check import violations
from tests.simulation.world import Record, simulate

PLANS: Final = Path(__file__).parent / "plans"
COLLECT_EVERY: Final = 16
"""Worlds are full of cycles; collecting at fixed places keeps the collector out of the simulation itself."""
CHUNK: Final = 25


@dataclass(slots=True)
class Figures:
    """Of many seeds."""

    seeds: int = 0
    faults: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    messages: int = 0
    callbacks: int = 0
    virtual_s: float = 0.0
    failing: dict[int, list[str]] = field(default_factory=dict)

    def add(self, record: Record, found: list[str]) -> None:
        """One seed more."""
        self.seeds += 1
        self.faults += len(record.faults.reached)
        self.kinds += record.faults.kinds
        self.calls += len(record.calls)
        self.messages += len(record.history["HR_RUNS_0"])
        self.callbacks += record.steps
        self.virtual_s += record.virtual_s
        if found:
            self.failing[record.seed] = found

    def merge(self, other: "Figures") -> None:
        """Those of other seeds as well."""
        self.kinds += other.kinds
        self.failing |= other.failing
        for name in ("seeds", "faults", "calls", "messages", "callbacks", "virtual_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def line(self, seconds: float) -> str:
        """As one line of JSON."""
        return json.dumps(
            {
                "seeds": self.seeds,
                "failing": len(self.failing),
                "violations": sum(map(len, self.failing.values())),
                "faults": self.faults,
                "faults_by_kind": dict(sorted(self.kinds.items())),
                "calls": self.calls,
                "messages": self.messages,
                "virtual_s": round(self.virtual_s),
                "seconds": round(seconds, 1),
                "seeds_per_s": round(self.seeds / seconds, 1),
            }
        )


def run_seeds(seeds: Iterable[int], mutant: str = "") -> Figures:
    """Simulate and judge each seed in this process."""
    figures = Figures()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with mutants.applied(mutant):
            for count, seed in enumerate(seeds):
                record = simulate(seed)
                figures.add(record, violations(record))
                if count % COLLECT_EVERY == 0:
                    gc.collect()
    finally:
        if was_enabled:
            gc.enable()
    return figures


def run_many(seeds: range, *, jobs: int, mutant: str = "") -> Figures:
    """As `run_seeds`, in several processes."""
    if jobs <= 1:
        return run_seeds(seeds, mutant)
    figures = Figures()
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    with ProcessPoolExecutor(jobs) as pool:
        for part in pool.map(run_seeds, chunks, [mutant] * len(chunks)):
            figures.merge(part)
    return figures


def shrunk(seed: int, plan: f.Plan, *, mutant: str = "") -> tuple[dict[f.Key, f.Fault], bool]:
    """A small part of a failing plan, and whether it fails with fixed delays and in plain order."""

    def fails(part: f.Plan, settled: bool) -> bool:
        with mutants.applied(mutant):
            found = bool(violations(simulate(seed, faults=f.listed(part), settled=settled)))
        gc.collect()
        return found

    settled = fails(plan, True)
    return f.shrink(plan, lambda part: fails(part, settled)), settled


def explain(seed: int, found: list[str], *, mutant: str = "") -> Iterator[str]:
    """What somebody who meets the failure needs."""
    yield f"seed {seed} breaks {len(found)} promises:"
    yield from (f"  {text[:500]}" for text in found[:10])
    command = f"python -m tests.simulation.run --seed {seed}" + (f" --mutant {mutant}" if mutant else "")
    yield f"repeat it: {command}    make its plan small: {command} --shrink"


def main() -> int:
    """The exit code: 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="only this one, with its plan")
    parser.add_argument("--plan", type=Path, help="only this kept plan")
    parser.add_argument("--shrink", action="store_true", help="with --seed: keep a small plan under plans/")
    parser.add_argument("--mutant", default="", choices=("", *mutants.MUTANTS), help="break the protocol on purpose")
    given = parser.parse_args()
    if given.plan is not None:
        kept = f.load(given.plan)
        return _one(simulate(kept.seed, faults=f.listed(kept.plan), settled=kept.settled), given)
    if given.seed is not None:
        with mutants.applied(given.mutant):
            record = simulate(given.seed)
        return _one(record, given)
    began_s = time.monotonic()
    seeds = range(given.first, given.first + given.seeds)
    figures = run_many(seeds, jobs=given.jobs, mutant=given.mutant)
    for seed, found in sorted(figures.failing.items())[:10]:
        _say(explain(seed, found, mutant=given.mutant))
    _say([figures.line(time.monotonic() - began_s)])
    return 1 if figures.failing else 0


def _one(record: Record, given: argparse.Namespace) -> int:
    found = violations(record)
    _say(f"  {' '.join(map(str, (*key, *fault)))}" for key, fault in record.faults.reached.items())
    _say([f"history {record.digest}, {len(record.faults.reached)} faults, {record.virtual_s:.1f} virtual seconds"])
    if not found:
        return 0
    _say(explain(record.seed, found, mutant=given.mutant))
    if given.shrink:
        plan, settled = shrunk(record.seed, record.faults.reached, mutant=given.mutant)
        path = PLANS / f"seed-{record.seed}{'-' + given.mutant if given.mutant else ''}.json"
        f.save(path, seed=record.seed, plan=plan, why=found[0], settled=settled)
        _say([f"{len(plan)} faults are enough, kept as {path}"])
    return 1


def _say(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
