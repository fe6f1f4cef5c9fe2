"""Questions to people while schedulers die by SIGKILL: between request and answer, and with an answer just stored."""

import json
from collections import Counter
from pathlib import Path

import pytest

from headrace.contracts import codec, subjects
from headrace.contracts import events as ev
from headrace.pipeline.plan import approval_hash
from tests.chaos.cluster import Cluster
from tests.conftest import until

RUNS = 12
TEXT = """
pipeline: gate
steps:
  ok: {approval: {message: "Go on?", timeout: 5m}, fallback: {value: {by: nobody}}}
outputs: {by: "${{ steps.ok.output.by }}"}
"""


@pytest.mark.timeout(180)
async def test_fault_kill_9_between_request_and_answer_loses_and_doubles_no_answer(tmp_path: Path) -> None:
    """Given runs that ask, the owner dies; given answers of two people, a scheduler dies with one stored. One wins."""
    async with Cluster(tmp_path) as cluster:
        first = cluster.spawn("scheduler")
        await cluster.put(TEXT)
        await cluster.start("gate", [f"r{number}" for number in range(RUNS)])
        await until(lambda: _asked(cluster, RUNS), within_s=60, what="all ask")
        first.kill()
        dying = cluster.spawn(
            "scheduler",
            HEADRACE_CRASH="answer_stored_before_taken:3",
            HEADRACE_CRASH_FILE=str(tmp_path / "crashed"),
        )
        sent = [(f"r{number}", by) for number in range(RUNS) for by in ("ann", "bob")]
        for run, by in sent:
            decision = "approve" if by == "ann" else "reject"
            answer = {"runid": run, "step": "ok", "hash": approval_hash({"message": "Go on?"}), "by": by}
            body = json.dumps(answer | {"decision": decision}).encode()
            await cluster.broker.append("hr.cmd.default.run-approve", body, msg_id=f"{run}-{by}")
        await until(lambda: not dying.alive, within_s=60, what="a scheduler died with an answer stored")
        assert (tmp_path / "crashed").read_text().splitlines() == ["answer_stored_before_taken"]
        cluster.spawn("scheduler")
        await cluster.until_completed(RUNS, within_s=90)
        await until(lambda: _answered(cluster, len(sent)), within_s=60, what="every command is answered")
        accepted = await _accepted(cluster)
        messages = [message for _, message in await cluster.messages()]
    given = {message.id: message for message in messages if isinstance(message, ev.ApprovalGiven)}
    taken = [
        event
        for message in messages
        if isinstance(message, ev.RunDecided)
        for event in message.data.events
        if isinstance(event, ev.ApprovalGranted | ev.ApprovalDenied)
    ]
    assert len(given) == len(taken) == RUNS
    assert Counter(given[event.answer].causationid for event in taken) == Counter(accepted)


async def _asked(cluster: Cluster, count: int) -> bool:
    messages = [message for _, message in await cluster.messages() if isinstance(message, ev.RunDecided)]
    events = [event for message in messages for event in message.data.events]
    return sum(isinstance(event, ev.ApprovalRequested) for event in events) >= count


async def _answered(cluster: Cluster, count: int) -> bool:
    return sum(command.endswith(("-ann", "-bob")) for command in await cluster.answered_ms()) >= count


async def _accepted(cluster: Cluster) -> list[str]:
    outcomes = [codec.decode(one.body) async for one in cluster.broker.read(subjects.OUTCOMES, ("hr.outcome.>",))]
    return [
        outcome.causationid
        for outcome in outcomes
        if isinstance(outcome, ev.CommandAccepted) and outcome.causationid.endswith(("-ann", "-bob"))
    ]
