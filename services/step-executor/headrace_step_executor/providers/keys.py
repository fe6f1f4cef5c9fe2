"""Where providers' keys come from, and which provider of a name can be reached from an environment. Light: no SDK."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from headrace_step_executor.providers.failures import provider_error

OFFLINE: Final = ("echo", "script", "cassette")
"""They need neither key nor network."""


class KeyNames(NamedTuple):
    """Variables of one provider. `NAME_FILE` beside `key` names a file with the key, read at every call."""

    key: str
    base_url: str
    keyless: bool
    """With an address of one's own it works without a key."""


KEYS: Final[Mapping[str, KeyNames]] = {
    "anthropic": KeyNames("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", False),
    "google": KeyNames("GEMINI_API_KEY", "GEMINI_BASE_URL", False),
    "openai": KeyNames("OPENAI_API_KEY", "OPENAI_BASE_URL", True),
}


def reachable(provider: str, environ: Mapping[str, str]) -> bool:
    """True when the provider is known and has what it needs."""
    if provider in OFFLINE:
        return True
    names = KEYS.get(provider)
    if names is None:
        return False
    has_key = bool(environ.get(names.key) or environ.get(f"{names.key}_FILE"))
    return has_key or (names.keyless and bool(environ.get(names.base_url)))


def missing(provider: str, environ: Mapping[str, str]) -> str:
    """Why a provider cannot be reached and what to do about it; empty when it can."""
    if reachable(provider, environ):
        return ""
    names = KEYS.get(provider)
    if names is None:
        return f"there is no provider `{provider[:60]}`; known are {', '.join(sorted((*OFFLINE, *KEYS)))}"
    instead = f", or {names.base_url} for a server of your own" if names.keyless else ""
    return f"the provider `{provider}` has no key: set {names.key} or {names.key}_FILE{instead}"


def read_key(environ: Mapping[str, str], name: str) -> str:
    """The key of this moment; empty when none is given.

    Raises:
        ProviderError: `provider_missing`, its file cannot be read.
    """
    direct = environ.get(name, "")
    path = environ.get(f"{name}_FILE", "")
    if direct or not path:
        return direct
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = "provider_missing"
        raise provider_error(msg, f"{name}_FILE cannot be read: {error}") from error


def fingerprint(key: str) -> str:
    """What a key may be called in events and logs: 8 hex digits that say nothing about it; empty without a key."""
    return hashlib.blake2b(key.encode(), digest_size=4, person=b"headrace-key").hexdigest() if key else ""
