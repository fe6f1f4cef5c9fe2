"""The only source of ids and jitter. Seeded in tests and in the simulator."""

import random
import secrets
from typing import Protocol


class Entropy(Protocol):
    """What services may draw."""

    def jitter(self) -> float:
        """A draw from [0, 1). Recorded in the event that uses it."""
        ...

    def bits(self, count: int) -> int:
        """A random integer of `count` bits, for ids and tokens."""
        ...


class SystemEntropy:
    """The operating system's."""

    def jitter(self) -> float:
        """See Entropy."""
        return secrets.randbits(53) / 2**53

    def bits(self, count: int) -> int:
        """See Entropy."""
        return secrets.randbits(count)


class SeededEntropy:
    """The same draws for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def jitter(self) -> float:
        """See Entropy."""
        return self._random.random()

    def bits(self, count: int) -> int:
        """See Entropy."""
        return self._random.getrandbits(count)
