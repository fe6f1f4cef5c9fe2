"""Workspaces outlive their runs for as long as the pipeline's `retain` says, and no longer.

Every executor that has the workspaces looks through them; two of them at one directory do no harm. What is removed is
first taken out of its place under another name, so that nobody ever finds half a workspace.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from headrace.contracts import codec, ids, names, subjects
from headrace.contracts.errors import (
    CorruptError,
    MalformedMessageError,
    NewerSchemaError,
    NotFoundError,
    RetryableError,
)
from headrace.pipeline.durations import parse_duration_ms
from headrace.runtime import blobs
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import EventLog, Stored
from headrace_step_executor.broker_time import BrokerTime

log = logging.getLogger("headrace.executor")

LOOK_EVERY_S: Final = 60.0
"""A workspace is kept at most so much too long."""
LOOKED_AT_MAX: Final = 500
"""Runs that are asked about in one round: each costs one read of the log. The next round goes on behind them."""
ENDED: Final = frozenset({"run-completed", "run-failed", "run-cancelled"})
REMOVING: Final = ".removing-"
T = TypeVar("T")


class Keeping:
    """Removes the workspaces of runs that have ended long enough ago. `run` is a supervised child."""

    def __init__(
        self, eventlog: EventLog, root: Path, *, clock: Clock, time: BrokerTime, threads: Executor, run_streams: int
    ) -> None:
        self._log, self._root, self._clock, self._time = eventlog, root, clock, time
        self._threads, self._run_streams = threads, run_streams
        self._due_ms: dict[Path, int] = {}
        """Workspaces of ended runs, as long as they are there: when they may go."""
        self._behind = Path()
        """Where the round before this one stopped."""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except RetryableError as error:
                log.warning("workspaces.wait", extra={"why": str(error)})
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> int:
        """One round; gives how many were removed.

        Raises:
            RetryableError: the log cannot be read now.
        """
        found = await self._in_thread(_homes, self._root)
        self._due_ms = {home: self._due_ms[home] for home in found if home in self._due_ms}
        unknown = [home for home in found if home not in self._due_ms]
        ahead = [home for home in unknown if home > self._behind] or unknown
        for home in ahead[:LOOKED_AT_MAX]:
            self._behind = home
            due_ms = await self._when(home)
            if due_ms is not None:
                self._due_ms[home] = due_ms
        gone = [home for home, due_ms in self._due_ms.items() if due_ms <= self._time.now_ms()]
        for home in gone:
            await self._in_thread(_remove, home)
            log.info("workspace.removed", extra={"run_id": home.name})
        return len(gone)

    async def _when(self, home: Path) -> int | None:
        """When it may be removed; None while its run goes on."""
        tenant, run = home.parent.name, home.name
        stream = subjects.runs_stream(ids.partition_of(run), streams=self._run_streams)
        last = await self._log.last(stream, subjects.creation_scope(run))
        if last is None:  # its history is gone, and what that said about its files with it
            return await self._in_thread(_changed_ms, home) + names.WORKSPACE_RETAIN_MS
        place = subjects.parse_run_subject(last.subject)
        if place is None or place.tenant != tenant or place.rest not in ENDED:
            return None
        return last.time_ms + await self._retain_ms(tenant, last)

    async def _retain_ms(self, tenant: str, last: Stored) -> int:
        """What the run's definition says; what one without it is given where nobody can tell any more."""
        try:
            ref = subjects.blob_ref(subjects.DEFINITION_ROOT, codec.decode(last.body).defdigest)
            document = msgspec.json.decode(await blobs.get(self._log, tenant, ref))["main"]
        except (NotFoundError, CorruptError, MalformedMessageError, NewerSchemaError) as error:
            log.warning("workspace.retain_unknown", extra={"seq": last.seq, "why": str(error)})
            return names.WORKSPACE_RETAIN_MS
        return parse_duration_ms(document["retain"]) if "retain" in document else names.WORKSPACE_RETAIN_MS

    async def _in_thread(self, work: Callable[[Path], T], path: Path) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, path)


def _homes(root: Path) -> list[Path]:
    """Workspaces by tenant and run, in order; what was left of a removal goes now."""
    found = []
    for tenant in _folders(root):
        for home in _folders(tenant):
            if home.name.startswith(REMOVING):
                shutil.rmtree(home, ignore_errors=True)
            elif ids.RUN_RE.fullmatch(home.name):
                found.append(home)
    return sorted(found)


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [path / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:  # nothing was ever worked on here, or another executor was faster
        return []


def _changed_ms(home: Path) -> int:
    try:
        return int(home.lstat().st_mtime * 1000)
    except FileNotFoundError:  # another executor was faster
        return 0


def _remove(home: Path) -> None:
    """Rid of it. What another executor removes at the same time is gone all the same."""
    aside = home.with_name(REMOVING + home.name)
    try:
        home.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)  # what is left is tried again by the next round
