"""Every knob of the session store."""

from pydantic import Field

from headrace.runtime.config import Settings


class Config(Settings):
    """The shared settings and the size of the cache."""

    cache_bytes_max: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024, le=64 * 1024**3)
    """Content of conversations kept in memory. What is not kept is folded again from the log: about 1 s per
    50,000 turns."""
    cache_sessions_max: int = Field(default=10_000, ge=1, le=1_000_000)
    """Conversations kept in memory; bounds what empty ones cost."""
