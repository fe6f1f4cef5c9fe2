"""Every knob of the tool registry."""

from headrace.runtime.config import Settings


class Config(Settings):
    """The shared settings; the registry has no knob of its own."""
