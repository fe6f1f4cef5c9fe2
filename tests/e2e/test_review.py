"""The main job with a server that speaks the real wire: a model and an address are all it needs."""

import asyncio
import json
from pathlib import Path

from tests.e2e.command import headrace, lines
from tests.e2e.pipelines import written
from tests.unit.step_executor.wire import response, serving

REVIEW = Path(__file__).resolve().parents[2] / "examples/review-repo.yaml"


async def answer(request: bytes) -> bytes:
    """What a model says of each file; of one it says nothing until it is asked again."""
    head, _, body = request.partition(b"\r\n\r\n")
    prompt = json.loads(body)["messages"][-1]["content"]
    if "c.py" in prompt and b"x-attempt: 1" in head.lower():
        return response(b'{"error": {"message": "slow down"}}', status=429)
    said = "- line 1: a defect" if "b.py" in prompt else "No findings."
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return response(json.dumps(whole).encode())


async def test_the_review_runs_unchanged_with_a_server_of_ones_own(tmp_path: Path) -> None:
    """No key; a refused call is made again; files with findings come first, then the longest; a cut is said."""
    for name, count in (("a.py", 9), ("b.py", 1), ("c.py", 3), ("d.py", 50)):
        written(tmp_path, name, "x = 1\n" * count)
    async with serving(answer) as wire:
        done = await asyncio.to_thread(
            headrace, tmp_path, "run", str(REVIEW), "-i", "model=openai/m", "-i", "max_files=3", "--json",
            OPENAI_BASE_URL=f"{wire.url}/v1",
        )  # fmt: skip
        asked = wire.requests
    result = lines(done.stdout)[-1]
    assert (done.returncode, result["outputs"]) == (0, {"report": "report.md", "files": 3, "without_review": 0}), done
    report = await asyncio.to_thread((tmp_path / result["files"][0]).read_text)
    assert "More than 3 files match `**/*.py`; these are the first." in report
    assert [line.split()[1] for line in report.splitlines() if line.startswith("## ")] == ["b.py", "a.py", "c.py"]
    assert "- line 1: a defect" in report
    assert len(asked) == 4, "each file once, and one once more"
    assert not any(b"authorization" in request.lower() for request in asked)
    assert all(b'"max_tokens":800' in request.replace(b" ", b"") for request in asked)
