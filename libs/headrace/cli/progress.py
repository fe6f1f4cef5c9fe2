"""How a run looks while it goes on: rows that change on a terminal, lines elsewhere, JSON objects for programs."""

import shutil
import sys
from typing import Any, Final, Protocol

import msgspec

from headrace.cli.output import emit, note, printable
from headrace.client.client import Change
from headrace.client.history import RunView, StepView
from headrace.contracts import codec
from headrace.contracts import events as ev
from headrace.runtime.clock import Clock

MARKS: Final = {
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("–", "dim"),
    "cancelled": ("–", "dim"),
    "retrying": ("↻", "yellow"),
    "waiting": ("⧗", "dim"),
}
ROWS_SPARE: Final = 4
"""Lines of the terminal left for what stands above and below the steps."""
REFRESH_PER_S: Final = 8


class Progress(Protocol):
    """Shows a run. `begin` once, then `update` for each change, then `end`."""

    def begin(self, view: RunView) -> None:
        """The view holds what is known already, which may be nothing."""
        ...

    def update(self, change: Change) -> None:
        """Something was read and is in the view."""
        ...

    def end(self) -> None:
        """Nothing more will be shown. Idempotent."""
        ...


def progress_for(clock: Clock, *, as_json: bool) -> Progress:
    """The right one for where standard error goes."""
    if as_json:
        return JsonProgress()
    return LiveProgress(clock) if sys.stderr is not None and sys.stderr.isatty() else LineProgress()


def seconds(milliseconds: float) -> str:
    """`0.05 s`, `12.3 s`, `4 m 05 s`."""
    if milliseconds < 10_000:
        return f"{milliseconds / 1000:.2f} s"
    if milliseconds < 100_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, rest = divmod(int(milliseconds / 1000), 60)
    return f"{minutes} m {rest:02d} s"


def detail(step: StepView, *, now_ms: int = 0) -> str:
    """What there is to say about a step besides its status: items, attempts, time, error."""
    parts = []
    if step.count >= 0:
        parts.append(f"{step.done}/{step.count}" + (f", {step.failed} failed" if step.failed else ""))
    if step.attempt > 1:
        parts.append(f"attempt {step.attempt}")
    end_ms = step.ended_ms or now_ms
    if step.taken:
        parts.append(f"in run {step.taken}")
    elif end_ms and step.status != "skipped":
        parts.append(seconds(max(0, end_ms - step.began_ms)))
    if step.due_ms > now_ms > 0:
        parts.append(f"goes on in {seconds(step.due_ms - now_ms)}")
    if step.failure is not None and step.status in ("failed", "retrying"):
        parts.append(f"{step.failure.code}: {step.failure.message.partition(chr(10))[0]}")
    if step.reason:
        parts.append(step.reason)
    return "  ".join(parts)


class JsonProgress:
    """One object a line: an event with its sequence and time."""

    def begin(self, view: RunView) -> None:
        """See Progress."""

    def update(self, change: Change) -> None:
        """See Progress."""
        for event in change.events:
            emit(event_json(event, run=getattr(change.message, "runid", ""), change=change))

    def end(self) -> None:
        """See Progress."""


def event_json(event: ev.DecisionEvent, *, run: str, change: Change) -> dict[str, Any]:
    """An event inside a decision, for a program that reads lines."""
    body: dict[str, Any] = msgspec.json.decode(codec.encode(event))
    kind = body.pop("type").removeprefix("io.headrace.").rpartition(".v")[0]
    return {"event": kind, "run": run, "seq": change.stored.seq, "time_ms": change.stored.time_ms, **body}


class LineProgress:
    """A line for each thing worth one: the end of a step, a retry, a failed item."""

    def __init__(self) -> None:
        self._view = RunView("")

    def begin(self, view: RunView) -> None:
        """See Progress."""
        self._view = view

    def update(self, change: Change) -> None:
        """See Progress."""
        for event in change.events:
            text = self._line(event)
            if text:
                note(text)

    def end(self) -> None:
        """See Progress."""

    def _line(self, event: ev.DecisionEvent) -> str:
        match event:
            case ev.RunPaused() | ev.RunBlocked() | ev.RunStalled() | ev.RunCancelling() | ev.RunResumed():
                about = self._view.reason or ("" if self._view.failure is None else self._view.failure.message)
                return f"run {self._view.status}" + (f": {about}" if about else "")
            case ev.ForeachStarted(path=path, count=count):
                return f"{path}  running  {count} items"
            case ev.StepCompleted(path=path) | ev.StepSkipped(path=path) | ev.StepCancelled(path=path):
                return "" if path[-1] in "])" else self._step(path)
            case ev.StepFailed(path=path) | ev.TimerSet(path=path) | ev.ApprovalRequested(path=path):
                return self._step(path)
            case ev.ChildStarted(path=path, child=child):
                return f"{path}  running  child run {child}"
        return ""

    def _step(self, path: str) -> str:
        step = self._view.steps.get(path)
        return "" if step is None else f"{path}  {step.status}  {detail(step)}".rstrip()


class LiveProgress:
    """Rows that are redrawn in place. Survives a terminal of any size: what does not fit is cut."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._view = RunView("")
        self._live: Any = None
        self._anchor = (0, 0.0)
        """Broker time of the last news in milliseconds, and our monotonic instant of it: durations are the broker's."""

    def begin(self, view: RunView) -> None:
        """See Progress."""
        from rich.console import Console
        from rich.live import Live

        self._view = view
        self._anchor = (self._clock.now_ms(), self._clock.monotonic_s())
        self._live = Live(
            console=Console(stderr=True),
            get_renderable=self._rows,
            refresh_per_second=REFRESH_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start()

    def update(self, change: Change) -> None:
        """See Progress. Drawing is the business of Live's own thread."""
        self._anchor = (change.stored.time_ms, self._clock.monotonic_s())

    def end(self) -> None:
        """See Progress."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _rows(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        grid.add_column(min_width=1, no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_column(no_wrap=True, overflow="ellipsis")
        steps = [
            step for step in tuple(self._view.steps.values()) if not step.item_of
        ]  # a copy: this is another thread
        news_ms, heard_s = self._anchor
        now_ms = news_ms + int((self._clock.monotonic_s() - heard_s) * 1000)
        room = max(1, shutil.get_terminal_size().lines - ROWS_SPARE)
        if len(steps) > room:
            grid.add_row("", Text(f"… {len(steps) - room} more", style="dim"), "")
        for step in steps[-room:]:
            mark, style = MARKS.get(step.status, ("•", "cyan"))
            text = detail(step, now_ms=0 if step.ended else now_ms)
            grid.add_row(Text(mark, style=style), Text(step.path), Text(printable(text), style="dim"))
        return grid
