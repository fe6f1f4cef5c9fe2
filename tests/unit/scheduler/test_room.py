"""How many orders may be offered, and who is next: a bound over all runs, dealt fairly."""

from collections.abc import Awaitable, Callable

import pytest

from headrace_scheduler.room import Room


class Work:
    """Runs with orders to offer, as a partition drives them."""

    def __init__(self, room: Room, **wanted: int) -> None:
        self.room, self.wanted, self.all = room, wanted, room.offers_out_max
        self.out: dict[str, int] = dict.fromkeys(wanted, 0)
        self.served: list[str] = []

    def offer(self, run: str) -> None:
        """The run decides: it takes what it may, and stands in line for the rest."""
        taken = min(self.wanted[run], self.room.left("t", run).get("llm", self.all))
        self.room.count("t", {"llm": self.out[run]}, {"llm": self.out[run] + taken})
        self.out[run] += taken
        self.wanted[run] -= taken
        if self.wanted[run]:
            self.room.wait("t", {"llm"}, run, self.serving(run))

    def serving(self, run: str) -> Callable[[], Awaitable[None]]:
        async def serve() -> None:
            self.served.append(run)
            self.offer(run)

        return serve

    def done(self, run: str, count: int = 1) -> None:
        """Orders of the run come back, and it decides again."""
        self.room.count("t", {"llm": self.out[run]}, {"llm": self.out[run] - count})
        self.out[run] -= count
        self.offer(run)


def test_what_is_out_is_counted_by_tenant_and_queue() -> None:
    """Another tenant and another queue have their own."""
    room = Room(10)
    room.count("t", {}, {"llm": 4, "tool": 1})
    room.count("t", {"llm": 4}, {"llm": 3})
    room.count("u", {}, {"llm": 10})
    assert room.left("t", "a") == {"llm": 7, "tool": 9}
    assert room.left("u", "a") == {"llm": 0}
    assert room.left("v", "a") == {}


async def test_the_bound_is_never_exceeded() -> None:
    """However many ask."""
    room = Room(10)
    work = Work(room, a=7, b=7, c=7)
    for run in "abc":
        work.offer(run)
    assert (work.out, room.left("t", "a")["llm"]) == ({"a": 7, "b": 3, "c": 0}, 0)
    await room.serve()
    assert sum(work.out.values()) == 10 and work.served == []


async def test_a_large_run_does_not_starve_a_small_one() -> None:
    """The places of a thousand items that come back go to those who wait, not to the next of the thousand."""
    work = Work(Room(10), big=1_000, small=3)
    work.offer("big")
    work.offer("small")
    rounds = 0
    while work.wanted["small"]:
        work.done("big")
        await work.room.serve()
        rounds += 1
    assert rounds <= 6
    assert sum(work.out.values()) <= 10


async def test_a_turn_is_an_equal_share() -> None:
    """Whoever is first in line does not take all that is free."""
    room = Room(12)
    room.count("t", {}, {"llm": 12})
    work = Work(room, a=100, b=100, c=100)
    for run in "abc":
        work.offer(run)
    room.count("t", {"llm": 12}, {})
    await room.serve()
    assert work.out == {"a": 4, "b": 4, "c": 4}


async def test_standing_in_line_twice_is_standing_once() -> None:
    """And keeps the first place."""
    room = Room(1)
    room.count("t", {}, {"llm": 1})
    work = Work(room, a=1, b=1)
    for run in "abaab":
        work.offer(run)
    room.count("t", {"llm": 1}, {})
    await room.serve()
    assert work.served == ["a"]
    work.done("a")
    await room.serve()
    assert work.served == ["a", "b"]
    await room.serve()
    assert work.served == ["a", "b"]


async def test_a_run_whose_serving_fails_keeps_its_place() -> None:
    """The broker was away for a moment; nobody is forgotten."""
    room = Room(1)
    room.count("t", {}, {"llm": 1})
    calls: list[str] = []

    async def broken() -> None:
        calls.append("a")
        if len(calls) == 1:
            msg = "away"
            raise ConnectionError(msg)

    room.wait("t", {"llm"}, "a", broken)
    room.count("t", {"llm": 1}, {})
    with pytest.raises(ConnectionError):
        await room.serve()
    await room.serve()
    assert calls == ["a", "a"]


async def test_serving_inside_serving_does_nothing() -> None:
    """Partitions share the room; one of them serves at a time."""
    room = Room(2)
    room.count("t", {}, {"llm": 2})
    served: list[str] = []

    def one(run: str) -> Callable[[], Awaitable[None]]:
        async def serve() -> None:
            await room.serve()
            served.append(run)

        return serve

    for run in "ab":
        room.wait("t", {"llm"}, run, one(run))
    room.count("t", {"llm": 2}, {})
    await room.serve()
    assert served == ["a", "b"]
