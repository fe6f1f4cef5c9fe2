"""Which fault happens where: a key (actor, site, nth passage) → a fault; by default none.

`Drawn` decides by hashing seed and key, so that a fault does not move when another one is left out; a seed enables a
random part of the kinds (swarm), and what it reached is its plan. `Listed` repeats a plan, or a part of one.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

FAULTS_MAX: Final = 60
"""Of one seed: beyond that everything is broken all the time and nothing deep is reached."""
RATE: Final = 0.05
"""Of passages that move a run (decisions, orders, reports, deliveries, acknowledgements, calls)."""
RATE_IDLE: Final = 0.001
"""Of all the others: renewals, beats, pulls, questions."""


class Key(NamedTuple):
    """The `nth` time (from 1) that `actor` passes `site`."""

    actor: str
    site: str
    nth: int


class Fault(NamedTuple):
    """What happens there, and for how long or after how long."""

    kind: str
    seconds: float


Plan = Mapping[Key, Fault]

SECONDS: Final[Mapping[str, tuple[float, float]]] = {
    "cut": (0.01, 3.0),
    "cut-answer": (0.01, 3.0),
    "late": (0.2, 40.0),
    "stall": (0.05, 14.0),
    "stall-answer": (0.05, 14.0),
    "crash-before": (0.05, 6.0),
    "crash-after": (0.05, 6.0),
    "crash-on": (0.05, 6.0),
    "crash-in-call": (0.05, 6.0),
    "freeze-before": (0.3, 25.0),
    "freeze-after": (0.3, 25.0),
    "freeze-on": (0.3, 25.0),
    "freeze-in-call": (0.3, 25.0),
    "hold": (0.05, 20.0),
    "lose": (0.0, 0.0),
    "twice": (0.001, 3.0),
    "unack": (0.001, 10.0),
    "forget": (0.001, 3.0),
    "skip": (0.001, 3.0),
    "restart": (0.1, 8.0),
    "overlook": (0.0, 0.0),
    "clock": (-3600.0, 3600.0),
}
"""Every kind with the range its seconds are drawn from, logarithmically where it is positive."""

UP: Final = ("cut", "stall", "crash-before", "crash-after", "freeze-before", "freeze-after")
UP_PUBLISH: Final = (*UP, "late")
UP_BUS: Final = (*UP, "lose")
DOWN: Final = ("cut-answer", "stall-answer", "crash-on", "freeze-on")
DOWN_BUS: Final = (*DOWN, "lose", "hold")
DOWN_DELIVERY: Final = (*DOWN, "hold")
CALL: Final = ("crash-in-call", "freeze-in-call")
BROKER_DELIVERY: Final = ("twice", "forget", "skip", "restart")
BROKER_ACK: Final = ("unack",)
BROKER_CONFLICT: Final = ("overlook",)
START: Final = ("clock",)
CERTAIN: Final[Mapping[tuple[str, ...], float]] = {BROKER_CONFLICT: 0.5, START: 0.7}
"""Sites that are rare by themselves: where the kind is enabled, it happens this often."""

_BUSY: Final = (
    "decision",
    "order",
    "report",
    "claim",
    "input",
    "outcome",
    "deliver",
    "ack EXEC",
    "call",
    "blob",
    "tailed HR_RUNS",
)


@lru_cache(maxsize=1024)
def rate_at(site: str, kinds: tuple[str, ...]) -> float:
    """How often something happens at a passage, at intensity 1."""
    moves_a_run = "hr-leases" not in site and any(word in site for word in _BUSY)
    return CERTAIN.get(kinds, RATE if moves_a_run else RATE_IDLE)


@dataclass(slots=True)
class Faults:
    """Counts passages and says what happens. `reached` is the plan of what happened so far."""

    choose: Callable[[Key, tuple[str, ...]], Fault | None]
    reached: dict[Key, Fault] = field(default_factory=dict)
    active: bool = True
    _passed: Counter[tuple[str, str]] = field(default_factory=Counter)

    def at(self, actor: str, site: str, kinds: tuple[str, ...]) -> Fault | None:
        """The fault at this passage, if any. Nothing happens any more once `active` is false."""
        if not self.active:
            return None
        where = (actor, site)
        self._passed[where] += 1
        key = Key(actor, site, self._passed[where])
        fault = self.choose(key, kinds)
        if fault is not None:
            self.reached[key] = fault
        return fault

    @property
    def kinds(self) -> Counter[str]:
        """How often each kind happened."""
        return Counter(fault.kind for fault in self.reached.values())


def drawn(seed: int) -> Faults:
    """Faults chosen by the seed, among a part of all kinds that the seed chooses too."""
    enabled = frozenset(kind for kind in SECONDS if _fraction(seed, kind) < 0.6)
    return _drawn(seed, enabled, (0.4, 1.0, 1.5, 2.5)[int(_fraction(seed, "intensity") * 4)])


def focused(seed: int, kinds: Iterable[str]) -> Faults:
    """Faults chosen by the seed among these kinds, and many of them."""
    return _drawn(seed, frozenset(kinds), 2.5)


def _drawn(seed: int, enabled: frozenset[str], intensity: float) -> Faults:
    left, salt = [FAULTS_MAX], int(_fraction(seed, "salt") * 2**32)

    def choose(key: Key, possible: tuple[str, ...]) -> Fault | None:
        rate = rate_at(key.site, possible) * (1.0 if possible in CERTAIN else intensity)
        where = f"{key.actor}/{key.site}/{key.nth}".encode()
        if crc32(where, salt) >= rate * 2**32 or left[0] <= 0:
            return None
        here = [kind for kind in possible if kind in enabled]
        if not here:
            return None
        left[0] -= 1
        digest = blake2b(where, digest_size=8, key=b"%d" % seed).digest()
        kind = here[digest[0] % len(here)]
        return Fault(kind, _seconds(kind, int.from_bytes(digest[1:]) / 2**56))

    return Faults(choose)


def listed(plan: Plan) -> Faults:
    """Exactly these faults."""
    return Faults(lambda key, _: plan.get(key))


def _fraction(seed: int, what: str) -> float:
    return int.from_bytes(blake2b(what.encode(), digest_size=6, key=b"%d" % seed).digest()) / 2**48


def _seconds(kind: str, fraction: float) -> float:
    low, high = SECONDS[kind]
    if low <= 0:
        return round(low + fraction * (high - low), 4)
    return round(low * math.exp(fraction * math.log(high / low)), 4)


# --- shrinking and keeping -------------------------------------------------------------------------------------------


def shrink(plan: Plan, fails: Callable[[Plan], bool], *, runs_max: int = 400) -> dict[Key, Fault]:
    """A small part of a failing plan that still fails (ddmin); `plan` itself must fail."""
    entries = list(plan.items())
    pieces, runs = 2, 0
    while len(entries) >= 1 and runs < runs_max:
        size = math.ceil(len(entries) / pieces)
        for start in range(0, len(entries), size):
            rest = entries[:start] + entries[start + size :]
            runs += 1
            if fails(dict(rest)):
                entries, pieces = rest, max(2, pieces - 1)
                break
        else:
            if size == 1:
                break
            pieces = min(len(entries), pieces * 2)
    return dict(entries)


def save(path: Path, *, seed: int, plan: Plan, why: str, settled: bool) -> None:
    """Keep a plan as a regression file: what it once broke, and how to repeat it."""
    faults = [[*key, *fault] for key, fault in plan.items()]
    text = json.dumps({"why": why, "seed": seed, "settled": settled, "faults": faults}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


class Kept(NamedTuple):
    """A regression file. `settled`: with fixed delays and in plain order."""

    why: str
    seed: int
    settled: bool
    plan: dict[Key, Fault]


def load(path: Path) -> Kept:
    """The plan in a regression file."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    plan = {Key(actor, site, nth): Fault(kind, seconds) for actor, site, nth, kind, seconds in raw["faults"]}
    return Kept(raw["why"], raw["seed"], raw["settled"], plan)
