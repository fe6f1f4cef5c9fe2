"""Every knob of the monitor."""

from pydantic import Field

from headrace.runtime.config import Settings
from headrace_monitor.state import RUNS_MAX


class Config(Settings):
    """The shared settings and the length of the run list."""

    runs_max: int = Field(default=RUNS_MAX, ge=100, le=10_000_000)
    """Rows kept in memory, about 1 KB each; older ended runs are found in the log alone."""
    silent_s: float = Field(default=5.0, ge=1.5, le=600)
    """Silence after which a process is shown as such, with an alert. Five beats of the slowest service; executors are
    acted on much sooner, by the scheduler: this is for people."""
