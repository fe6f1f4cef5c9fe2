"""Rendering: the same everywhere, chosen by size, killed with its attempt."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.step_executor.builders import order

from headrace.contracts import codec, events
from headrace.contracts.envelope import Value
from headrace.runtime.blobs import BlobCache
from headrace_step_executor.render import Bound, RenderJob, render
from headrace_step_executor.rendering import HERE_BYTES_MAX, Rendering
from headrace_step_executor.tools.beneath import Workspace


def job(template: Any, home: Path | None = None, **values: Any) -> RenderJob:
    bindings = tuple(Bound(name=name, data=codec.encode(value)) for name, value in values.items())
    return RenderJob(
        template=codec.encode(template),
        bindings=bindings,
        home="" if home is None else str(home),
        read_roots=(),
    )


def test_a_rendering_gives_bytes_or_a_failure_as_data() -> None:
    """Values keep their types; what an author gets wrong has a code."""
    assert (
        render(job({"a": "${{ inputs.n + 1 }}", "b": "n=${{ inputs.n }}"}, inputs={"n": 1})).output
        == b'{"a":2,"b":"n=1"}'
    )
    for template, code in (
        ("${{ inputs.gone }}", "expr_eval"),
        ("${{ 1 +", "expr_eval"),
        ("${{ file('x') }}", "path_denied"),
    ):
        failure = render(job(template, inputs={})).failure
        assert failure is not None
        assert failure.code in (code, "not_found", "definition_invalid"), failure


def test_otp_s5_a_rendering_sees_one_version_of_a_file_and_hashes_that_one(tmp_path: Path) -> None:
    """However often it asks; the hash is of the text that was used."""
    (tmp_path / "f").write_text("v1")
    rendered = render(job("${{ file('f') + file('f') }}", tmp_path))
    assert rendered.output == b'"v1v1"'
    assert list(rendered.files) == ["f"]
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    failure = render(job("${{ file('pipe') }}", tmp_path)).failure
    assert failure is not None
    assert failure.code == "not_a_file"


def large_order(template: str) -> events.Order:
    data = codec.encode({"l": list(range(60_000))})
    assert len(data) > HERE_BYTES_MAX
    made = order(kind="transform", queue="transform", bindings={"inputs": Value(json=msgspec.Raw(data))})
    raw = msgspec.Raw(codec.encode(template))
    return msgspec.structs.replace(made, input=msgspec.UNSET, template=raw)


@pytest.fixture
def unused_log() -> Any:
    return None  # nothing here is held by reference


async def test_workers_are_kept_and_close_ends_them(unused_log: Any) -> None:
    """Two renderings, one process; the result is the same as here."""
    with ThreadPoolExecutor(1) as threads:
        rendering = Rendering(BlobCache(unused_log), threads, workers_max=2)
        for _ in range(2):
            rendered = await rendering.render(large_order("${{ sum(inputs.l) }}"), "default", Workspace(None))
            assert rendered.output == b"1799970000"
        assert rendering.workers_started == 1
        pid = rendering._idle[0].pid
        await rendering.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_otp_s8_a_rendering_that_is_cancelled_is_killed(unused_log: Any) -> None:
    """Its process group is gone when the attempt's deadline has passed, and the next rendering has a new worker."""
    with ThreadPoolExecutor(1) as threads:
        rendering = Rendering(BlobCache(unused_log), threads, workers_max=1)
        await rendering.render(large_order("${{ sum(inputs.l) }}"), "default", Workspace(None))
        pid = rendering._idle[0].pid
        slow = large_order("${{ sort_by(group_by(inputs.l, ''), '-key')[0].key }}")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await rendering.render(slow, "default", Workspace(None))
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        again = await rendering.render(large_order("${{ inputs.l[1] }}"), "default", Workspace(None))
        assert again.output == b"1"
        await rendering.close()
