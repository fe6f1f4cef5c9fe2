"""Is there room for more? A probe gives a number or raises; unknown counts as over the limit, never as
zero."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.contracts import codec, subjects
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.errors import RetryableError, UnknownOutcomeError
from headrace.contracts.events import Alert, AlertCleared, AlertRaised
from headrace.contracts.failure import Failure
from headrace.contracts.ids import event_id
from headrace.runtime.clock import Clock, rfc3339
from headrace.runtime.eventlog import EventLog

log = logging.getLogger("headrace.probes")

PROBE_EVERY_S: Final = 1.0
MEMORY_USED_MAX: Final = 0.8
"""Of the limit. The rest is for the work already accepted, which is never shed."""
DISK_FREE_BYTES_MIN: Final = 256 * 1024 * 1024
"""Below this an attempt's files may not fit any more: one value is at most 64 MiB."""
_NO_LIMIT: Final = 1 << 60
"""cgroup v1 says "no limit" with a number close to 2**63."""


class ProbeError(RetryableError):
    """A probe has no answer. Whoever asked must act as if the limit were exceeded."""

    code = "probe_failed"


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes used and the most that may be used."""

    used: int
    limit: int


def memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Usage:
    """Resident bytes of this process, and the least of its cgroup's limits and the machine's memory.

    Raises:
        ProbeError: a file that must be there is unreadable or makes no sense.
    """
    try:
        resident = int((proc / "self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        total = next(
            int(line.split()[1]) * 1024
            for line in (proc / "meminfo").read_text(encoding="ascii").splitlines()
            if line.startswith("MemTotal:")
        )
        limits = [total, *_cgroup_limits(cgroup)]
    except (OSError, ValueError, IndexError, StopIteration, UnicodeDecodeError) as error:
        msg = f"memory: {type(error).__name__}: {error}"
        raise ProbeError(msg) from error
    if resident <= 0 or min(limits) <= 0:
        msg = f"memory: {resident} bytes resident of {min(limits)} make no sense"
        raise ProbeError(msg)
    return Usage(used=resident, limit=min(limits))


def _cgroup_limits(cgroup: Path) -> list[int]:
    """Limits of cgroup v2 and v1, whichever exist."""
    limits: list[int] = []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (cgroup / name).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            continue
        if text != "max" and int(text) < _NO_LIMIT:
            limits.append(int(text))
    return limits


def disk(path: Path) -> Usage:
    """Bytes used and size of the file system of `path`.

    Raises:
        ProbeError: it cannot be asked.
    """
    try:
        stats = os.statvfs(path)
    except OSError as error:
        msg = f"disk: {path}: {error}"
        raise ProbeError(msg) from error
    size = stats.f_blocks * stats.f_frsize
    if size <= 0:
        msg = f"disk: {path}: a size of {size} bytes makes no sense"
        raise ProbeError(msg)
    return Usage(used=size - stats.f_bavail * stats.f_frsize, limit=size)


class Admission:
    """Whether new work may be accepted. Accepted work never asks.

    `run()` is a supervised child that probes every second and keeps the alerts `memory` and `disk` in step
    with what it found. Until the first probe nothing is admitted.
    """

    def __init__(
        self,
        eventlog: EventLog,
        *,
        clock: Clock,
        source: str,
        tenant: str,
        probe_memory: Callable[[], Usage] = memory,
        probe_disk: Callable[[], Usage] | None = None,
    ) -> None:
        self._log, self._clock, self._source, self._tenant = eventlog, clock, source, tenant
        self._probe_memory, self._probe_disk = probe_memory, probe_disk
        unprobed = Failure(code="not_probed", message="memory was not probed yet", retryable=True)
        self._found: dict[str, Failure | None] = {"memory": unprobed}
        self._alerted: dict[str, bool] = {}

    def refusal(self) -> Failure | None:
        """Why new work must be refused now, or None. Cheap: it reads what was probed last."""
        return next((failure for failure in self._found.values() if failure is not None), None)

    def probe(self) -> None:
        """Probe now."""
        self._found["memory"] = self._memory()
        if self._probe_disk is not None:
            self._found["disk"] = self._disk(self._probe_disk)

    async def run(self) -> None:
        """Probe for ever."""
        while True:
            self.probe()
            for rule, failure in self._found.items():
                if (failure is not None) != self._alerted.get(rule, False):
                    await self._alert(rule, failure)
            await self._clock.sleep(PROBE_EVERY_S)

    def _memory(self) -> Failure | None:
        try:
            usage = self._probe_memory()
        except Exception as error:  # noqa: BLE001 - whatever it is, what was found last must not stand for it
            return _no_answer("memory", error)
        if usage.used > MEMORY_USED_MAX * usage.limit:
            text = f"{usage.used} bytes resident of {usage.limit}; at most {MEMORY_USED_MAX:.0%} are used for new work"
            return Failure(code="memory_full", message=text, retryable=True)
        return None

    def _disk(self, probe: Callable[[], Usage]) -> Failure | None:
        try:
            usage = probe()
        except Exception as error:  # noqa: BLE001 - whatever it is: unknown is refused, not free space
            return _no_answer("disk", error)
        free = usage.limit - usage.used
        if free < DISK_FREE_BYTES_MIN:
            text = f"{free} bytes free, at least {DISK_FREE_BYTES_MIN} are needed"
            return Failure(code="disk_full", message=text, retryable=True)
        return None

    async def _alert(self, rule: str, failure: Failure | None) -> None:
        """Write the change; when the log is away it is tried again at the next probe."""
        kind = AlertRaised if failure is not None else AlertCleared
        now = self._clock.now_ms()
        message = kind(
            specversion=SPECVERSION,
            id=event_id(kind.__struct_config__.tag, self._tenant, self._source, rule, now),
            source=self._source,
            time=rfc3339(now),
            schemaver=1,
            tenant=self._tenant,
            data=Alert(rule=rule, about=self._source, failure=failure),
        )
        log.log(
            logging.ERROR if failure else logging.INFO,
            "alert.raised" if failure else "alert.cleared",
            extra={"rule": rule, "failure": failure.message if failure else ""},
        )
        try:
            await self._log.append(subjects.alert(rule), codec.encode(message), msg_id=message.id)
        except (RetryableError, UnknownOutcomeError) as error:
            log.warning("alert.not_stored", extra={"rule": rule, "why": str(error)})
            return
        self._alerted[rule] = failure is not None


def _no_answer(what: str, error: Exception) -> Failure:
    if isinstance(error, ProbeError):
        return error.failure()
    return ProbeError(f"{what}: {type(error).__name__}: {error}").failure()
