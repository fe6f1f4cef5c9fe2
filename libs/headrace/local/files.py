"""What else lies in a data directory: the log of local mode, and the runs' files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from headrace.contracts.errors import ConfigError
from headrace.local.datadir import make_data_dir
from headrace.runtime.logging import configure
from headrace_step_executor.attempt import WORKSPACES

LOGS: Final = "logs"
LOG_BYTES_MAX: Final = 16 * 1024 * 1024
"""At the start of a process: a day of `headrace up` under load, and no more than a disk can spare."""


@contextmanager
def local_logging(data_dir: Path, level: str, *, name: str = "headrace") -> Iterator[Path]:
    """Log lines go to `logs/<name>.log`, so that the terminal belongs to the run."""
    path = log_file(data_dir, name)
    with path.open("a", encoding="utf-8") as stream:
        configure(level, stream=stream)
        try:
            yield path
        finally:
            configure("error")  # before the file is closed: whatever still logs must not fail


def log_file(data_dir: Path, name: str) -> Path:
    """`logs/<name>.log`; a long one of earlier processes is set aside as `.1`, in place of the one before.

    Raises:
        ConfigError: it cannot be written.
    """
    folder = data_dir / LOGS
    path = folder / f"{name}.log"
    try:
        make_data_dir(data_dir)
        folder.mkdir(exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        path.touch()
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise ConfigError(msg) from error
    return path


def workspace_of(data_dir: Path, tenant: str, run: str) -> Path:
    """A run's files."""
    return data_dir / WORKSPACES / tenant / run
