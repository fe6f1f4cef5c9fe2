"""A cache is bounded by number and by bytes, and never drops what is in use."""

from dataclasses import replace

from headrace.runtime.transact import Loaded
from headrace_session_store.cache import SessionCache
from headrace_session_store.state import Session


def session(size: int) -> Loaded[Session]:
    return Loaded(replace(Session(session="s"), content_bytes=size), 1)


def test_the_least_recently_used_goes_first() -> None:
    """By number."""
    cache = SessionCache(bytes_max=1_000, sessions_max=2)
    first = cache.slot("a")
    cache.slot("b")
    assert cache.slot("a") is first
    cache.slot("c")
    assert cache.slot("a") is first
    assert len(cache) == 2


def test_large_conversations_push_others_out() -> None:
    """By bytes, growth of a conversation included."""
    cache = SessionCache(bytes_max=1_000, sessions_max=10)
    for name, size in (("a", 400), ("b", 400), ("b", 500)):
        cache.put(name, cache.slot(name), session(size))
    assert (len(cache), cache.content_bytes) == (2, 900)
    cache.put("c", cache.slot("c"), session(300))
    assert (len(cache), cache.content_bytes) == (2, 800)


async def test_what_is_in_use_stays() -> None:
    """An append under way keeps its conversation."""
    cache = SessionCache(bytes_max=1_000, sessions_max=1)
    used = cache.slot("a")
    async with used.lock:
        cache.slot("b")
        assert cache.slot("a") is used
