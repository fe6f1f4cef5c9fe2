"""Seeds pass, the same seed is the same history, every kind of fault is reached, and kept plans stay harmless."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulation import faults, mutants, run
from tests.simulation.check import violations
from tests.simulation.world import simulate

SEEDS = int(os.environ.get("HEADRACE_SIM_SEEDS", "240"))
"""`make simulate` runs 2,000."""
JOBS = min(2, os.cpu_count() or 1)
RARE = {"overlook"}
"""Kinds whose occasion arises in few seeds: a conflict has to happen first."""
MUTANT_SEEDS = 60
"""Enough for the shyest mutant, ten times over; most show in the first."""


def test_seeds_keep_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """Crashes, freezes, lost and late messages, forgetful consumers: no history breaks a rule, every run ends."""
    began_s = time.monotonic()
    figures = run.run_many(range(SEEDS), jobs=JOBS)
    with capsys.disabled():
        sys.stdout.write(f"\nsimulation {figures.line(time.monotonic() - began_s)}\n")
    said = [line for seed, found in sorted(figures.failing.items())[:3] for line in run.explain(seed, found)]
    assert not figures.failing, "\n".join(said)
    assert figures.faults >= 10 * figures.seeds
    assert set(faults.SECONDS) - set(figures.kinds) <= RARE


@pytest.mark.parametrize("path", sorted(run.PLANS.glob("*.json")), ids=lambda path: path.stem)
def test_a_plan_that_once_broke_a_promise_breaks_none(path: Path) -> None:
    """Each was shrunk from a failing seed before its bug was mended."""
    kept = faults.load(path)
    record = simulate(kept.seed, faults=faults.listed(kept.plan), settled=kept.settled)
    assert violations(record) == [], kept.why


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_a_broken_protocol_is_noticed(name: str) -> None:
    """The checker and the faults together see each of the five mutations, and it is the mutation that they see."""

    def broken(seed: int) -> list[str]:
        return violations(simulate(seed, faults=faults.focused(seed, mutants.TELLING[name])))

    with mutants.applied(name):
        caught = next((seed for seed in range(MUTANT_SEEDS) if broken(seed)), None)
    assert caught is not None, f"{name} goes unnoticed in {MUTANT_SEEDS} seeds"
    assert broken(caught) == []


def test_the_same_seed_is_the_same_history() -> None:
    """In another process, with other hashes of strings, byte for byte."""
    program = "from tests.simulation.world import simulate; print(*(simulate(seed).digest for seed in (3, 7, 21)))"
    answers = []
    for hash_seed in ("1", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        answers.append(done.stdout.split())
    here = [simulate(seed).digest for seed in (3, 7, 21)]
    assert answers == [here, here]


def test_without_faults_nothing_is_lost_or_repeated() -> None:
    """Then every call happens once."""
    for seed in range(3):
        record = simulate(seed, faults=faults.listed({}))
        calls = [(call.run, call.path, call.attempt) for call in record.calls]
        assert violations(record) == []
        assert len(calls) == len(set(calls))
