"""`headrace approve` as people use it: what is asked is shown; on a terminal it asks, elsewhere it wants the hash."""

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.command import HEADRACE, Started, environ, headrace, lines, until
from tests.e2e.pipelines import written

GATE = """
pipeline: gate
inputs: {what: {type: string}}
steps:
  ok: {approval: {message: "Publish ${{ inputs.what }}?\\nNobody can take it back.", by: [ann], timeout: 1h}}
outputs: {ok: "${{ steps.ok.output }}"}
"""


def test_an_approval_is_shown_asked_and_answered(tmp_path: Path) -> None:
    """`show` has the question; `approve` asks on a terminal; without one it wants the hash; another hash is refused."""
    file = written(tmp_path, "gate.yaml", GATE)
    with Started(tmp_path, "up") as system:
        system.until(lambda: any(line.startswith("ready: ") for line in system.lines), what="up")
        for run in ("one", "two"):
            assert headrace(tmp_path, "submit", str(file), "-i", "what=it", "--run-id", run).returncode == 0
            until(lambda run=run: asks(tmp_path, run) is not None, within_s=30, what="asked")
        question = asks(tmp_path, "one")
        assert question is not None
        assert question["shown"] == {"message": "Publish it?\nNobody can take it back."} and question["by"] == ["ann"]
        shown = headrace(tmp_path, "show", "one").stdout
        assert "step ok asks ann, until " in shown and "  Nobody can take it back." in shown, shown
        assert f"hash {question['hash']}" in shown

        blind = headrace(tmp_path, "approve", "one", "ok", "--as", "ann")
        assert (blind.returncode, "--hash" in blind.stderr) == (64, True), blind
        other = headrace(tmp_path, "approve", "one", "ok", "--as", "ann", "--hash", "0" * 64)
        assert (other.returncode, "hash_differs" in other.stderr) == (65, True), other
        code, said = on_terminal(tmp_path, "n\n", "approve", "one", "ok", "--as", "ann")
        assert (code, "nothing was sent" in said) == (130, True), said
        code, said = on_terminal(tmp_path, "y\n", "approve", "one", "ok", "--as", "ann", "--comment", "fine")
        assert (code, "Publish it?" in said, "Approve as ann? [y/N]" in said) == (0, True, True), said
        until(lambda: status(tmp_path, "one") == "completed", within_s=30, what="completed")
        given = json.loads(headrace(tmp_path, "show", "one", "--json").stdout)["outputs"]["ok"]
        assert (given["decision"], given["by"], given["comment"]) == ("approved", "ann", "fine")
        late = headrace(tmp_path, "approve", "one", "ok", "--as", "ann", "--hash", question["hash"])
        assert (late.returncode, "run one is completed" in late.stderr) == (65, True), late

        answer = ("--reject", "--comment", "too soon", "--as", "ann", "--hash", question["hash"], "--json")
        done = headrace(tmp_path, "approve", "two", "ok", *answer)
        assert lines(done.stdout) == [{"event": "approval.rejected", "run": "two", "step": "ok", "by": "ann"}], done
        until(lambda: status(tmp_path, "two") == "failed", within_s=30, what="failed")
        assert "rejected by ann: too soon" in headrace(tmp_path, "show", "two").stdout
        system.interrupt()
        assert system.wait(30) == 0


def status(folder: Path, run: str) -> str:
    """How a run stands."""
    return str(json.loads(headrace(folder, "show", run, "--json").stdout)["status"])


def asks(folder: Path, run: str) -> dict[str, Any] | None:
    """What its step asks, if it does."""
    steps = json.loads(headrace(folder, "show", run, "--json").stdout)["steps"]
    return steps[0]["asks"] if steps else None


def on_terminal(folder: Path, typed: str, *arguments: str) -> tuple[int, str]:
    """The exit code of a command whose standard input is a terminal, and what it said."""
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    done = subprocess.run(
        [*HEADRACE, *arguments],
        cwd=folder,
        env=environ(TERM="xterm"),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    return done.returncode, done.stdout
