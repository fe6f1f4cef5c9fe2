"""Providers by name, as this process has them."""

import asyncio
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from headrace.runtime.clock import Clock
from headrace_step_executor.providers.anthropic_wire import AnthropicProvider
from headrace_step_executor.providers.cassette import FILE_BYTES_MAX, CassetteProvider, Mode, append_to
from headrace_step_executor.providers.echo import EchoProvider
from headrace_step_executor.providers.failures import provider_error
from headrace_step_executor.providers.google_wire import GoogleProvider
from headrace_step_executor.providers.keys import KEYS, OFFLINE, fingerprint, reachable, read_key
from headrace_step_executor.providers.openai_wire import OpenAIProvider
from headrace_step_executor.providers.protocol import Provider
from headrace_step_executor.providers.script import ScriptProvider
from headrace_step_executor.tools.beneath import Workspace

SCRIPT_BYTES_MAX: Final = 1024 * 1024
"""The loader's own bound for a document."""
KEY_FILE_S: Final = 5.0
_ADAPTERS: Final[Mapping[str, type[AnthropicProvider | GoogleProvider | OpenAIProvider]]] = {
    "anthropic": AnthropicProvider,
    "google": GoogleProvider,
    "openai": OpenAIProvider,
}


class Identity(NamedTuple):
    """Whose health and whose limits a call depends on. Empty for what is no network."""

    endpoint: str
    """The host of an address of one's own; empty for the vendor's."""
    credential: str
    """The key's fingerprint at this moment."""


class Cassettes(NamedTuple):
    """How cassettes are used here. `directory` is where they are written; None: they are not."""

    mode: Mode = "replay"
    directory: Path | None = None


class Providers:
    """What `provider/model` can name here. Keys are read from the environment that is given, at every call."""

    def __init__(
        self,
        clock: Clock,
        *,
        environ: Mapping[str, str],
        read_roots: tuple[Path, ...],
        cassettes: Cassettes | None = None,
    ) -> None:
        self._environ = environ
        cassettes = cassettes or Cassettes()
        files = Workspace(None, (*read_roots, *((cassettes.directory,) if cassettes.directory else ())))
        self.networked = {
            name: _ADAPTERS[name](
                clock, key=functools.partial(read_key, environ, named.key), base_url=environ.get(named.base_url, "")
            )
            for name, named in KEYS.items()
        }
        self._by_name: dict[str, Provider] = {
            "echo": EchoProvider(),
            "script": ScriptProvider(clock, lambda name: files.read(name, bytes_max=SCRIPT_BYTES_MAX)),
            "cassette": CassetteProvider(
                self.get,
                mode=cassettes.mode,
                read=lambda name: files.read(name, bytes_max=FILE_BYTES_MAX),
                append=append_to(cassettes.directory) if cassettes.directory else None,
            ),
            **self.networked,
        }
        self.names = (*OFFLINE, *(name for name in KEYS if reachable(name, environ)))
        """Those that can answer: beats advertise them."""

    def get(self, name: str) -> Provider:
        """The provider.

        Raises:
            ProviderError: `provider_missing` with those that there are.
        """
        found = self._by_name.get(name)
        if found is None:
            known = ", ".join(sorted(self._by_name))
            msg = "provider_missing"
            raise provider_error(msg, f"no provider {name[:60]!r}; this executor has {known}")
        return found

    async def identity(self, name: str) -> Identity:
        """Who is asked when this provider is, now. A key's file is read in a thread, within 5 s.

        Raises:
            ProviderError: `provider_missing`, the file cannot be read.
        """
        named = KEYS.get(name)
        if named is None or self._by_name.get(name) is not self.networked.get(name):
            return Identity("", "")
        host = urlsplit(self._environ.get(named.base_url, "")).netloc
        if not self._environ.get(f"{named.key}_FILE"):
            return Identity(host, fingerprint(read_key(self._environ, named.key)))
        async with asyncio.timeout(KEY_FILE_S):
            key = await asyncio.to_thread(read_key, self._environ, named.key)
        return Identity(host, fingerprint(key))

    def add(self, name: str, provider: Provider) -> None:
        """Serve another one under a name, e.g. of a test."""
        self._by_name[name] = provider
        self.names = (*(known for known in self.names if known != name), name)

    async def close(self) -> None:
        """Let go of connections."""
        for provider in self.networked.values():
            await provider.close()
