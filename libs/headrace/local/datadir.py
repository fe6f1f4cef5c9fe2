"""The data directory of local mode, `.headrace/`: one owner at a time, and where a second terminal finds it."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from headrace.contracts.errors import ConfigError, RetryableError
from headrace.runtime.clock import Clock

LOCK: Final = "lock"
ENDPOINT: Final = "endpoint"
PORT: Final = "port"
LOCK_WITHIN_S: Final = 3.0
"""A killed owner's nats-server gets its own SIGKILL a moment later, and holds the lock until then."""
LOOK_PAUSE_S: Final = 0.05
PORT_WITHIN_S: Final = 2.0
"""A process that is killed gives its files back one by one: the lock may be free a moment before the port is."""


class InUseError(RetryableError):
    """Another process uses the data directory."""

    code = "in_use"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What runs here. `pid` is the process that owns the directory."""

    url: str
    http_url: str
    pid: int
    durability: str
    stays: bool = False
    """It goes on when a run ends: `headrace up`, not `headrace run`."""


async def lock(data_dir: Path, *, clock: Clock) -> int:
    """A descriptor that holds the directory's lock until it, and every copy that a child inherited, is closed.

    A killed process leaves no lock behind.

    Raises:
        ConfigError: the directory cannot be made. InUseError: somebody has the lock.
    """
    held = _opened(data_dir)
    until_s = clock.monotonic_s() + LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock.monotonic_s() > until_s:
                os.close(held)
                msg = f"{data_dir} is in use by another headrace process; end it, or choose another --data-dir"
                raise InUseError(msg) from None
            await clock.sleep(LOOK_PAUSE_S)
        else:
            return held


def _opened(data_dir: Path) -> int:
    make_data_dir(data_dir)
    try:
        return os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = f"cannot use {data_dir} as data directory: {error.strerror}"
        raise ConfigError(msg) from error


def make_data_dir(data_dir: Path) -> None:
    """Make the directory, and keep it out of everybody's version control.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        ignore = data_dir / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="ascii")
    except OSError as error:
        msg = f"cannot use {data_dir} as data directory: {error.strerror}"
        raise ConfigError(msg) from error


@contextmanager
def endpoint_file(data_dir: Path, endpoint: Endpoint) -> Iterator[None]:
    """`endpoint` names what runs here while the block runs. A killed owner leaves a stale one; readers try it out."""
    path = data_dir / ENDPOINT
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(endpoint) + b"\n")
    fresh.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


async def preferred_port(data_dir: Path, *, clock: Clock) -> int:
    """The port of the last time, where it is free: clients that are still there reconnect by themselves. Else 0."""
    try:
        port = int((data_dir / PORT).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
    until_s = clock.monotonic_s() + PORT_WITHIN_S
    while not _is_free(port):
        if clock.monotonic_s() > until_s:
            return 0
        await clock.sleep(LOOK_PAUSE_S)
    return port


def _is_free(port: int) -> bool:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: not hindered by TIME_WAIT
            probe.bind(("127.0.0.1", port))
    except (OSError, OverflowError):
        return False
    return True


def remember_port(data_dir: Path, port: int) -> None:
    """See `preferred_port`."""
    (data_dir / PORT).write_text(str(port), encoding="ascii")


def read_endpoint(data_dir: Path) -> Endpoint | None:
    """What runs here, as far as its owner is alive; None when nothing does."""
    try:
        endpoint = msgspec.json.decode((data_dir / ENDPOINT).read_bytes(), type=Endpoint)
    except (OSError, msgspec.DecodeError):  # none, or of another release
        return None
    return endpoint if _locked(data_dir) else None


def _locked(data_dir: Path) -> bool:
    try:
        looked = os.open(data_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(looked, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(looked)
    return False
