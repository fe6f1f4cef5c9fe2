"""A budget on the command line: it holds through `kill -9`, and `show` and `plan` have the figures."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from headrace.client.history import RunView
from tests.e2e.command import Started, headrace, lines, processes_of, until
from tests.e2e.test_kill import exported

POINTS = int(os.environ.get("HEADRACE_SOAK", "2"))
LATENCY_S = 0.15
LIMIT_USD = 5
ITEMS = 8
PIPELINE = f"""
pipeline: paid
limits: {{budget: {{usd: {LIMIT_USD}, on_exceed: fail}}}}
steps:
  ask:
    foreach: [{", ".join(map(str, range(ITEMS)))}]
    max_parallel: 2
    on_item_error: continue
    llm: {{model: script/answers.yaml, prompt: "say ${{{{ item }}}}", max_tokens: 1000}}
outputs: {{said: "${{{{ steps.ask.output.counts.succeeded }}}}"}}
"""
ANSWERS = f"answers: [{{text: said, output_tokens: 1000, latency_ms: {int(LATENCY_S * 1000)}}}]\n"
PRICES = "version: e2e\nmodels: {script/answers.yaml: {input: 0, output: 1000}}\n"


def written(folder: Path) -> Path:
    """Eight calls of a dollar each under a budget of five."""
    for name, text in (("paid.yaml", PIPELINE), ("answers.yaml", ANSWERS), ("prices.yaml", PRICES)):
        (folder / name).write_text(text)
    return folder / "prices.yaml"


@pytest.mark.parametrize("seed", range(POINTS))
async def test_promise_p10_a_budget_holds_through_kill_9(tmp_path: Path, seed: int) -> None:
    """What is known to be spent, orphans included, is within the limit wherever the kill falls; and it is used."""
    draw = random.Random(f"budget/{seed}")
    prices = str(written(tmp_path))
    with Started(tmp_path, "run", "paid.yaml", "--json", HEADRACE_PRICES_FILE=prices) as started:
        done = draw.randrange(1, 4)
        started.until(lambda: len(started.completed()) >= done, what=f"{done} items")
        await asyncio.sleep(draw.uniform(0, LATENCY_S))
        started.kill_group()
    until(lambda: not processes_of(tmp_path), within_s=10, what="processes left after kill -9")
    with Started(tmp_path, "run", "paid.yaml", "--json", HEADRACE_PRICES_FILE=prices) as again:
        assert again.wait(60) == 0, again.errors.read_text()
    run = again.objects[-1]["run"]
    assert run == started.objects[0]["run"], "the same run goes on"
    view = RunView(run)
    for message in await exported(tmp_path, run):
        view.take(message)
    spending = view.spending
    known = spending.total - spending.estimated
    print(f"seed {seed}: known {known}, estimated {spending.estimated}, orphaned {spending.orphaned}")
    assert known.usd_nanos + spending.orphaned.usd_nanos <= LIMIT_USD * 10**9
    failed = [step for step in view.steps.values() if step.status == "failed"]
    assert {step.failure.code for step in failed if step.failure is not None} == {"budget_exceeded"}
    said = again.objects[-1]["outputs"]["said"]
    assert done <= said <= LIMIT_USD and said + len(failed) == ITEMS


def test_show_and_plan_say_what_it_costs(tmp_path: Path) -> None:
    """Each step, the whole, and beforehand at most."""
    prices = str(written(tmp_path))
    planned = headrace(tmp_path, "plan", "paid.yaml", HEADRACE_PRICES_FILE=prices)
    assert "cost: at most $8.00; with every retry $40.00" in planned.stdout, planned
    ran = headrace(tmp_path, "run", "paid.yaml", "--json", HEADRACE_PRICES_FILE=prices)
    assert ran.returncode == 0, ran
    run = lines(ran.stdout)[-1]["run"]
    with Started(tmp_path, "up", "--json", HEADRACE_PRICES_FILE=prices) as up:
        up.until(lambda: up.lines, what="the system is up")
        shown = headrace(tmp_path, "show", run)
        assert "cost $5.00, 5010 tokens" in shown.stdout, shown
        asked = next(line for line in shown.stdout.splitlines() if line.startswith("ask "))
        assert "$5.00" in asked
        whole = lines(headrace(tmp_path, "show", run, "--json").stdout)[0]
        assert whole["cost"]["usd_nanos"] == 5 * 10**9 and whole["cost"]["orphans"] == []
        (spent,) = next(step["spent"] for step in whole["steps"] if step["path"] == "ask[0]")
        assert spent["table"].endswith(" + e2e") and spent["reserved"]["usd_nanos"] == 10**9


def test_a_run_asks_for_more_and_goes_on_when_it_is_allowed(tmp_path: Path) -> None:
    """`approve RUN --budget`, from another terminal."""
    prices = str(written(tmp_path))
    file = tmp_path / "paid.yaml"
    file.write_text(file.read_text().replace("on_exceed: fail", "on_exceed: pause"))
    with Started(tmp_path, "run", "paid.yaml", "--json", HEADRACE_PRICES_FILE=prices) as started:
        started.until(lambda: any(said["event"] == "run.blocked" for said in started.objects), what="it asks")
        run = started.objects[0]["run"]
        assert headrace(tmp_path, "approve", run, "--budget", "2usd").returncode == 64
        allowed = headrace(tmp_path, "approve", run, "--budget", "+3usd")
        assert allowed.returncode == 0, allowed
        assert started.wait(60) == 0, started.errors.read_text()
    assert started.objects[-1]["outputs"]["said"] == ITEMS
