"""What is said on HR_SYSTEM, of which the newest of each subject is kept: alerts, and breakers that changed."""

import msgspec

from headrace.contracts.envelope import Message
from headrace.contracts.failure import Failure


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `alert-raised` and `alert-cleared`."""

    rule: str
    about: str
    failure: Failure | None = None


class AlertRaised(Message, frozen=True, tag="io.headrace.alert.raised.v1"):
    """Somebody must look."""

    data: Alert


class AlertCleared(Message, frozen=True, tag="io.headrace.alert.cleared.v1"):
    """What the alert was about is over."""

    data: Alert


class Breaker(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `breaker-opened`, `breaker-probed` and `breaker-closed`: one replica's breaker has changed."""

    name: str
    provider: str
    model: str
    endpoint: str = ""
    """Host of an address of one's own; empty for the vendor's."""
    cause: str = ""
    """The failure that opened it."""
    due_ms: int = 0
    """When it lets a probe through; for `breaker-opened`."""
    trips: int = 0
    """How often it has opened since it was last closed."""
    instance: str = ""
    """The process whose breaker it is."""


class BreakerOpened(Message, frozen=True, tag="io.headrace.breaker.opened.v1"):
    """Calls are not made until the next probe is due."""

    data: Breaker


class BreakerProbed(Message, frozen=True, tag="io.headrace.breaker.probed.v1"):
    """One call is let through, to see."""

    data: Breaker


class BreakerClosed(Message, frozen=True, tag="io.headrace.breaker.closed.v1"):
    """Calls are made again."""

    data: Breaker


BreakerMessage = BreakerOpened | BreakerProbed | BreakerClosed
SystemMessage = AlertRaised | AlertCleared | BreakerMessage
