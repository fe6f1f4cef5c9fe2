"""An error as data, as it travels on events, reports, outcomes and replies."""

import msgspec


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something failed. `code` is stable and lower case; `retryable` is decided where the error arose."""

    code: str
    message: str
    retryable: bool = False
    retry_after_ms: int = 0
    causes: tuple[str, ...] = ()
