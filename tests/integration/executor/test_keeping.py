"""Workspaces go when their run ended long enough ago: over a real broker, with histories of every kind."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace.contracts import events as ev
from headrace.contracts import subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode
from headrace.contracts.envelope import Value
from headrace.runtime import blobs
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import Expected
from headrace.runtime.jetstream import JetStreamBroker
from headrace.runtime.streams import stream_specs
from headrace_step_executor.broker_time import BrokerTime
from headrace_step_executor.keeping import REMOVING, Keeping
from tests import builders

DAY_MS = 86_400_000


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


class Story:
    """Histories and workspaces of runs, and one who looks after them."""

    def __init__(self, broker: JetStreamBroker, root: Path, threads: ThreadPoolExecutor) -> None:
        self.broker, self.root, self.time = broker, root, BrokerTime(SystemClock())
        self.keeping = Keeping(broker, root, clock=SystemClock(), time=self.time, threads=threads, run_streams=1)

    def workspace(self, run: str, tenant: str = builders.TENANT) -> Path:
        home = self.root / tenant / run
        (home / "deep").mkdir(parents=True)
        (home / "deep" / "file.txt").write_text("kept")
        return home

    async def history(self, run: str, headline: str, **top: Any) -> None:
        """One decision of a run of a pipeline with these keys."""
        data = json.dumps({"files": {}, "main": {"pipeline": "p", "workspace": True} | top}).encode()
        await blobs.put(self.broker, builders.TENANT, subjects.DEFINITION_ROOT, data)
        decided = builders.decided(2, ev.RunCompleted(outputs=Value(json=b"{}")), runid=run, defdigest=sha256_hex(data))
        prefix = subjects.run_prefix(builders.TENANT, "p", run)
        scope = Expected(0, subjects.decision_scope(prefix))
        await self.broker.append(subjects.decision(prefix, headline), encode(decided), msg_id=run, expected=scope)


@pytest.fixture
async def story(broker: JetStreamBroker, tmp_path: Path, threads: ThreadPoolExecutor) -> Story:
    for spec in stream_specs():
        await broker.ensure_stream(spec)
    return Story(broker, tmp_path / "workspaces", threads)


async def test_a_workspace_is_kept_for_as_long_as_the_pipeline_says(story: Story) -> None:
    """Not a moment less after the run's end; two rounds later it is gone, and so is what it held."""
    short, long, open_ = (story.workspace(run) for run in ("short", "long", "open"))
    await story.history("short", "run-completed", retain="1h")
    await story.history("long", "run-failed", retain="2d")
    await story.history("open", "decided", retain="1ms")
    assert await story.keeping.look() == 0
    assert short.exists()
    story.time.seen(SystemClock().now_ms() + 3_590_000)
    assert await story.keeping.look() == 0
    story.time.seen(SystemClock().now_ms() + 3_610_000)
    assert await story.keeping.look() == 1
    assert not short.exists()
    story.time.seen(SystemClock().now_ms() + 3 * DAY_MS)
    assert await story.keeping.look() == 1
    assert not long.exists()
    assert (open_ / "deep" / "file.txt").read_text() == "kept"


async def test_without_a_word_or_a_history_it_is_thirty_days(story: Story) -> None:
    """Of the end; where the history was purged, of the last change. Another tenant's end ends nothing here."""
    silent, purged, stranger = story.workspace("silent"), story.workspace("purged"), story.workspace("silent", "other")
    await story.history("silent", "run-completed")
    story.time.seen(SystemClock().now_ms() + 29 * DAY_MS)
    assert await story.keeping.look() == 0
    story.time.seen(SystemClock().now_ms() + 31 * DAY_MS)
    assert await story.keeping.look() == 2
    assert not silent.exists()
    assert not purged.exists()
    assert stranger.exists()


async def test_a_removal_that_was_cut_short_is_finished_and_links_are_not_followed(story: Story) -> None:
    """Half a workspace is never at its place; what a link leads to stays."""
    outside = story.root.parent / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    left = story.workspace("done").rename(story.root / builders.TENANT / f"{REMOVING}done")
    linked = story.workspace("linked")
    (linked / "link").symlink_to(outside)
    (story.root / builders.TENANT / "foreign").symlink_to(outside)
    await story.history("linked", "run-completed", retain="1ms")
    story.time.seen(SystemClock().now_ms() + 1000)
    assert await story.keeping.look() == 1
    assert not left.exists()
    assert not linked.exists()
    assert (outside / "mine.txt").read_text() == "mine"
