"""Recordings of model calls: written once, answered for ever, and a miss that says what is different."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.step_executor.vendors.said import Heard

from headrace.runtime.clock import SystemClock
from headrace_step_executor.providers.cassette import parse_cassette
from headrace_step_executor.providers.failures import ProviderError
from headrace_step_executor.providers.messages import ChatMessage, ToolOffer
from headrace_step_executor.providers.protocol import GenerateRequest
from headrace_step_executor.providers.registry import Cassettes, Providers
from headrace_step_executor.providers.script import ScriptProvider

SCRIPT = b"""answers:
  - {times: 1, match: hello, pieces: ["Hi ", "there"], tool_calls: [{name: clock}]}
  - {times: 1, match: busy, error: rate_limited, retry_after_ms: 1500}
"""


def request(content: str, **fields: Any) -> GenerateRequest:
    given: dict[str, Any] = {
        "model": "calls.jsonl#real/m", "messages": (ChatMessage(role="user", content=content),), "key": "r1/a",
    }  # fmt: skip
    return GenerateRequest(**(given | fields))


def providers(mode: Any, directory: Path) -> Providers:
    made = Providers(SystemClock(), environ={}, read_roots=(), cassettes=Cassettes(mode, directory))
    made.add("real", ScriptProvider(SystemClock(), lambda _name: SCRIPT))
    return made


async def test_otp_s12_a_recording_answers_like_the_provider_it_was_taken_from(tmp_path: Path) -> None:
    """Words, pieces, calls and usage; in another run, another attempt and another process, unasked."""
    heard, again = Heard(), Heard()
    real = await providers("record", tmp_path).get("cassette").generate(request("hello"), deadline_s=5, on_delta=heard)
    replayed = (
        await providers("replay", tmp_path)
        .get("cassette")
        .generate(request("hello", key="r2/b", attempt=3), deadline_s=5, on_delta=again)
    )
    assert replayed.parts == real.parts
    assert again.pieces == heard.pieces == ["Hi ", "there"]
    assert replayed.model == "cassette/calls.jsonl#real/m"
    assert replayed.usage.output_tokens == real.usage.output_tokens


async def test_errors_are_recorded_too(tmp_path: Path) -> None:
    """With code, class and wait."""
    for mode in ("record", "replay"):
        with pytest.raises(ProviderError) as raised:
            await providers(mode, tmp_path).get("cassette").generate(request("busy"), deadline_s=5)
        error = raised.value
        assert (error.attempt_code, error.attempt_retryable, error.retry_after_ms) == ("rate_limited", True, 1500)


async def test_auto_asks_once(tmp_path: Path) -> None:
    """The script has one answer only; a second question would fail."""
    auto = providers("auto", tmp_path).get("cassette")
    first = await auto.generate(request("hello"), deadline_s=5)
    assert (await auto.generate(request("hello"), deadline_s=5)).parts == first.parts


async def test_a_miss_fails_and_shows_how_the_nearest_recording_differs(tmp_path: Path) -> None:
    """Place and both values; never another recording's answer."""
    await providers("record", tmp_path).get("cassette").generate(request("hello"), deadline_s=5)
    replay = providers("replay", tmp_path).get("cassette")
    with pytest.raises(ProviderError) as raised:
        await replay.generate(request("hello you", max_tokens=5), deadline_s=5)
    assert str(raised.value) == (
        "calls.jsonl has no answer to this request; the nearest differs at "
        "$.messages[0].content: recorded 'hello', asked 'hello you'; $.max_tokens: recorded nothing, asked '5'"
    )
    assert raised.value.attempt_code == "invalid_request"
    for other in (
        request("hello", tools=(ToolOffer(name="x", description="", parameters={}),)),
        request("hello", output_schema={"type": "object"}),
        request("hello", model="calls.jsonl#real/other"),
        request("hello", options={"seed": 1}),
    ):
        with pytest.raises(ProviderError):
            await replay.generate(other, deadline_s=5)


async def test_options_are_recorded_as_hashes_alone(tmp_path: Path) -> None:
    """A key may be among them."""
    secret = "sk-canary-" + "0" * 20
    asked = request("hello", options={"api_key": secret})
    await providers("record", tmp_path).get("cassette").generate(asked, deadline_s=5)
    text = (tmp_path / "calls.jsonl").read_text()
    assert "canary" not in text
    assert "canary" not in repr(await providers("replay", tmp_path).get("cassette").generate(asked, deadline_s=5))
    assert json.loads(text)["request"]["options"].keys() == {"api_key"}


async def test_recording_writes_into_its_folder_alone(tmp_path: Path) -> None:
    """Names with a way in them, hidden ones and links are refused; without a folder nothing is recorded."""
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "out")
    for name in ("../out", "a/b", ".hidden", "link"):
        with pytest.raises((ProviderError, OSError)):
            await (
                providers("record", inside)
                .get("cassette")
                .generate(request("hello", model=f"{name}#real/m"), deadline_s=5)
            )
    assert not (tmp_path / "out").exists()
    nowhere = Providers(SystemClock(), environ={}, read_roots=(), cassettes=Cassettes("record"))
    with pytest.raises(ProviderError, match="HEADRACE_CASSETTE_DIR"):
        await nowhere.get("cassette").generate(request("hello"), deadline_s=5)


async def test_what_is_wrong_with_a_cassette_is_said(tmp_path: Path) -> None:
    """A model without its parts; a line that is no recording; a file that is not there."""
    replay = providers("replay", tmp_path).get("cassette")
    for model in ("calls.jsonl", "calls.jsonl#m", "#real/m", ""):
        with pytest.raises(ProviderError, match="expected cassette/FILE#PROVIDER/MODEL"):
            await replay.generate(request("hello", model=model), deadline_s=5)
    with pytest.raises(ProviderError, match="c:2: no recording"):
        parse_cassette(b"\n{}\n", "c")
    with pytest.raises(Exception, match="nothing\\.jsonl"):
        await replay.generate(request("hello", model="nothing.jsonl#real/m"), deadline_s=5)
