"""Every knob of the scheduler."""

from pydantic import Field

from headrace.contracts import names
from headrace.runtime.config import Settings


class Config(Settings):
    """The shared settings, and how much the scheduler offers and keeps."""

    offers_out_max: int = Field(default=names.OFFERS_OUT_MAX, ge=1, le=100_000)
    """Orders offered at a time for one tenant and queue. More only lengthens the broker's queue."""
    snapshots: bool = True
    """Off: a takeover reads the whole history. The result is the same; tests compare the two."""
    commands_in_flight: int = Field(default=64, ge=1, le=1_000)
    """Commands carried out side by side. Each waits for two appends, so 64 saturate one stream."""
