"""What an executor knows: tools, runs that ended, attempts that were revoked, orders in hand.

Pure: no clock, no random source, no IO. The catalogue is a fold of `HR_TOOLS`; the rest is memory of this
process, and losing it costs at most a question to the owner.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from headrace.contracts import events as ev
from headrace.contracts.live import Held

ENDED_RUNS_MAX: Final = 50_000
"""About 10 MB. Runs that ended longer ago have no order that is still within its `not_after`, or its owner
is asked."""
REVOKED_MAX: Final = 50_000

AttemptKey = tuple[str, str, int]
"""(run, step instance, attempt)."""


@dataclass(slots=True)
class Version:
    """A version of a tool, as the registry's events have it."""

    spec: ev.ToolSpec
    enabled: bool = True


class Catalogue:
    """Tools of all tenants. A built-in tool that no event has spoken of yet is as it was compiled in."""

    def __init__(self, compiled: Mapping[str, ev.ToolSpec]) -> None:
        self._compiled = compiled
        self._tools: dict[tuple[str, str], dict[str, Version]] = {}

    def evolve(self, message: ev.StoredMessage) -> None:
        """Take note of one event of `HR_TOOLS`; others change nothing."""
        match message:
            case ev.ToolRegistered(tenant=tenant, data=spec):
                versions = self._tools.setdefault((tenant, spec.tool), {})
                versions.pop(spec.version, None)  # registered again: it is the newest again
                versions[spec.version] = Version(spec)
            case ev.ToolDisabled(tenant=tenant, data=named):
                version = self._tools.get((tenant, named.tool), {}).get(named.version)
                if version is not None:
                    version.enabled = False

            case ev.ToolChanged(tenant=tenant, data=spec):
                for version in self._tools.get((tenant, spec.tool), {}).values():
                    version.enabled = False

    def clear(self) -> None:
        """Forget all events, before they are read again."""
        self._tools.clear()

    def knows(self, tenant: str, tool: str) -> bool:
        """True when an event has spoken of the tool: then what it says counts."""
        return (tenant, tool) in self._tools

    def names(self, tenant: str) -> set[str]:
        """Every tool that an event has spoken of, and every built-in one."""
        return {tool for owner, tool in self._tools if owner == tenant} | set(self._compiled)

    def find(self, tenant: str, tool: str, version: str = "") -> ev.ToolSpec | None:
        """The newest enabled version, or the one that is pinned, even if it was disabled since; None when there is
        none."""
        versions = self._tools.get((tenant, tool))
        if versions is None:
            compiled = self._compiled.get(tool)
            return compiled if compiled is not None and version in ("", compiled.version) else None
        if version:
            pinned = versions.get(version)
            return None if pinned is None else pinned.spec
        enabled = [version.spec for version in versions.values() if version.enabled]
        return enabled[-1] if enabled else None


class EndedRuns:
    """Runs known to have ended, the latest so many."""

    def __init__(self, kept_max: int = ENDED_RUNS_MAX) -> None:
        self._kept_max = kept_max
        self._runs: OrderedDict[str, None] = OrderedDict()

    def add(self, run: str) -> None:
        """The run has ended, or is being cancelled."""
        self._runs[run] = None
        self._runs.move_to_end(run)
        while len(self._runs) > self._kept_max:
            self._runs.popitem(last=False)

    def __contains__(self, run: object) -> bool:
        return run in self._runs

    def __len__(self) -> int:
        return len(self._runs)


class Revoked:
    """Attempts that are over for the engine, the latest so many. A later offer of the attempt is another
    matter."""

    def __init__(self, kept_max: int = REVOKED_MAX) -> None:
        self._kept_max = kept_max
        self._offers: OrderedDict[AttemptKey, int] = OrderedDict()

    def add(self, held: Held) -> None:
        """The owner says so."""
        key = (held.run, held.path, held.attempt)
        self._offers[key] = max(held.offer, self._offers.get(key, 0))
        self._offers.move_to_end(key)
        while len(self._offers) > self._kept_max:
            self._offers.popitem(last=False)

    def covers(self, key: AttemptKey, offer: int) -> bool:
        """True when this offer of the attempt, or a later one, was revoked."""
        return offer <= self._offers.get(key, 0)


@dataclass(slots=True)
class Hands:
    """Orders in hand: from the moment they are received until their report is stored or they are handed
    back."""

    offers: dict[AttemptKey, int] = field(default_factory=dict)
    """Attempt → highest offer in hand."""
    told: dict[AttemptKey, int] = field(default_factory=dict)
    """What the last beat left its listeners believing."""

    def take(self, key: AttemptKey, offer: int) -> None:
        """An order of this attempt was received."""
        self.offers[key] = max(offer, self.offers.get(key, 0))

    def release(self, key: AttemptKey) -> None:
        """Nothing of this attempt is in hand any more."""
        self.offers.pop(key, None)

    def delta(self) -> tuple[tuple[Held, ...], tuple[Held, ...]]:
        """(taken, finished) since the last beat. An order that came and went in between was never worth
        telling."""
        taken = tuple(_held(key, offer) for key, offer in self.offers.items() if self.told.get(key) != offer)
        finished = tuple(_held(key, offer) for key, offer in self.told.items() if key not in self.offers)
        return taken, finished

    def all(self) -> tuple[Held, ...]:
        """Everything in hand."""
        return tuple(_held(key, offer) for key, offer in self.offers.items())

    def beat_sent(self) -> None:
        """Listeners now know what there is."""
        self.told = dict(self.offers)


def _held(key: AttemptKey, offer: int) -> Held:
    return Held(run=key[0], path=key[1], attempt=key[2], offer=offer)
