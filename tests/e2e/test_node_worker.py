"""A tool worker in another language: `make node` installs what it needs and runs this."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from headrace.contracts import events as ev
from headrace.local.nats_server import NatsServer
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import build_executor
from headrace_tool_registry.config import Config as RegistryConfig
from headrace_tool_registry.service import ToolRegistry
from tests.conftest import Connect, until
from tests.engine import events_of, finished, history, outputs, put, running, running_scheduler, start

FOLDER = Path(__file__).resolve().parents[2] / "examples/node-worker"
NODE = shutil.which("node")
PIPELINE = """
pipeline: slugs
inputs: {title: {type: string}}
steps:
  slug: {tool: node.slug, with: {title: "${{ inputs.title }}"}, retry: {attempts: 1}}
outputs: {slug: "${{ steps.slug.output }}"}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        NODE is None or not (FOLDER / "node_modules").is_dir(), reason="needs node, and `npm ci` in the example"
    ),
]


async def test_a_worker_in_node_answers_pipelines(
    connect_broker: Connect, nats_server: NatsServer, tmp_path: Path
) -> None:
    """It registers, answers, refuses with a code of its own, and is found by the service protocol."""
    broker = await connect_broker("engine")
    assert NODE is not None
    async with (
        running_scheduler(broker),
        running(ToolRegistry, broker, "t", config=RegistryConfig(), builtin=()),
        running(build_executor, await connect_broker("e"), "e", config=ExecutorConfig(data_dir=tmp_path)) as executor,
    ):
        child = await asyncio.create_subprocess_exec(
            NODE, "worker.js", cwd=FOLDER,
            env={**os.environ, "NATS_URL": nats_server.url}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert child.stdout is not None
            async with asyncio.timeout(30):
                assert await child.stdout.readline() == b"serving node.slug 1\n"
            await until(lambda: executor._parts.catalogue.knows("default", "node.slug"), what="the catalogue")
            await put(broker, PIPELINE)
            await start(broker, "slugs", "r1", title="Crème brûlée, twice!")
            assert outputs(await finished(broker, "r1")) == {"slug": "creme-brulee-twice"}
            await start(broker, "slugs", "r2", title="?!")
            await finished(broker, "r2")
            (failed,) = events_of(await history(broker, "r2"), ev.StepFailed)
            assert (failed.failure.code, failed.failure.retryable) == ("no_words", False)
            info = json.loads(await broker.request("$SRV.INFO.node-worker", b"", timeout_s=5))
            assert [one["name"] for one in info["endpoints"]] == ["slug"]
        finally:
            child.kill()
            await child.wait()
