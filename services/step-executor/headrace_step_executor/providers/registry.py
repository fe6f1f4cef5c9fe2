"""Providers by name, as this process has them."""

from collections.abc import Mapping
from pathlib import Path

from headrace.runtime.clock import Clock
from headrace_step_executor.providers.echo import EchoProvider
from headrace_step_executor.providers.failures import provider_error
from headrace_step_executor.providers.openai_wire import OpenAIProvider
from headrace_step_executor.providers.protocol import Provider
from headrace_step_executor.providers.script import ScriptProvider
from headrace_step_executor.tools.beneath import Workspace

SCRIPT_BYTES_MAX = 1024 * 1024
"""The loader's own bound for a document."""


class Providers:
    """What `provider/model` can name here. Keys are read from the environment that is given, at the first
    call."""

    def __init__(self, clock: Clock, *, environ: Mapping[str, str], read_roots: tuple[Path, ...]) -> None:
        scripts = Workspace(None, read_roots)
        self._openai = OpenAIProvider(
            clock, key=lambda: _key(environ, "OPENAI_API_KEY"), base_url=environ.get("OPENAI_BASE_URL", "")
        )
        self._by_name: dict[str, Provider] = {
            "echo": EchoProvider(),
            "script": ScriptProvider(clock, lambda name: scripts.read(name, bytes_max=SCRIPT_BYTES_MAX)),
            "openai": self._openai,
        }
        named = ("OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "OPENAI_BASE_URL")
        reachable = any(environ.get(name) for name in named)
        self.names = ("echo", "script", *(("openai",) if reachable else ()))
        """Those that can answer: beats advertise them."""

    def get(self, name: str) -> Provider:
        """The provider.

        Raises:
            AttemptError: `provider_missing` with those that there are.
        """
        found = self._by_name.get(name)
        if found is None:
            known = ", ".join(sorted(self._by_name))
            msg = "provider_missing"
            raise provider_error(msg, f"no provider {name[:60]!r}; this executor has {known}")
        return found

    def add(self, name: str, provider: Provider) -> None:
        """Serve another one under a name, e.g. of a test."""
        self._by_name[name] = provider
        self.names = (*(known for known in self.names if known != name), name)

    async def close(self) -> None:
        """Let go of connections."""
        await self._openai.close()


def _key(environ: Mapping[str, str], name: str) -> str:
    direct = environ.get(name, "")
    path = environ.get(f"{name}_FILE", "")
    if direct or not path:
        return direct
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = "provider_missing"
        raise provider_error(msg, f"{name}_FILE cannot be read: {error}") from error
