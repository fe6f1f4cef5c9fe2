"""Conversations in memory, least recently used ones dropped first. A cache: every answer checks it against
the log."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from headrace.runtime.transact import Loaded
from headrace_session_store.state import NOTHING, Session


@dataclass(slots=True)
class Slot:
    """A conversation as folded so far. `lock` serialises its fold and its appends within this process."""

    loaded: Loaded[Session] = field(default_factory=lambda: Loaded(NOTHING, 0))
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class SessionCache:
    """Slots by subject, bounded by number and by bytes of content."""

    def __init__(self, *, bytes_max: int, sessions_max: int) -> None:
        self._bytes_max, self._sessions_max = bytes_max, sessions_max
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self.content_bytes = 0

    def __len__(self) -> int:
        return len(self._slots)

    def slot(self, subject: str) -> Slot:
        """The slot of a subject, made empty where there is none."""
        slot = self._slots.setdefault(subject, Slot())
        self._slots.move_to_end(subject)
        self._drop(keep=subject)
        return slot

    def put(self, subject: str, slot: Slot, loaded: Loaded[Session]) -> None:
        """Keep what was folded, and drop others, never those in use, until the rest fits."""
        if self._slots.get(subject) is slot:
            self.content_bytes += loaded.state.content_bytes - slot.loaded.state.content_bytes
        slot.loaded = loaded
        self._drop(keep=subject)

    def _drop(self, *, keep: str) -> None:
        if len(self._slots) <= self._sessions_max and self.content_bytes <= self._bytes_max:
            return
        for other in list(self._slots):
            if len(self._slots) <= self._sessions_max and self.content_bytes <= self._bytes_max:
                return
            if other != keep and not self._slots[other].lock.locked():
                self.content_bytes -= self._slots.pop(other).loaded.state.content_bytes
