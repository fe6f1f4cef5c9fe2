"""A conversation is a fold of its events, and its decisions are idempotent."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import ConflictError, CorruptError, NotFoundError
from headrace.contracts.live import AppendTurn, CloseSession, OpenSession
from headrace_session_store.decide import Origin, append_turn, close_session, open_session
from headrace_session_store.state import NOTHING, Session, evolve

ASKS = st.lists(
    st.tuples(
        st.one_of(
            st.just(OpenSession(session="s")),
            st.just(CloseSession(session="s")),
            st.builds(
                AppendTurn,
                session=st.just("s"),
                expected=st.integers(0, 5),
                role=st.just("user"),
                content=st.sampled_from([msgspec.Raw(b"1"), msgspec.Raw(b'"x"')]),
            ),
        ),
        st.sampled_from(["r1", "r2", "r3", "r4"]),
    ),
    max_size=30,
)


def choose(state: Session, ask: OpenSession | AppendTurn | CloseSession, request: str) -> object:
    origin = Origin(tenant="t", source="/session-store/x", time="", request=request)
    match ask:
        case OpenSession():
            return open_session(state, ask, origin=origin)
        case AppendTurn():
            return append_turn(state, ask, origin=origin)
        case CloseSession():
            return close_session(state, ask, origin=origin)


@given(ASKS)
def test_promise_p11_turns_have_no_gaps_and_requests_no_doubles(
    asks: list[tuple[OpenSession | AppendTurn | CloseSession, str]],
) -> None:
    """Whatever is asked in whatever order: versions count from 1, and one request appends at most one
    turn."""
    state, ids = NOTHING, []
    for ask, request in asks:
        try:
            event = choose(state, ask, request)
        except (ConflictError, NotFoundError):
            continue
        if event is not None:
            ids.append(event.id)  # type: ignore[attr-defined]
            state = evolve(state, event)  # type: ignore[arg-type]
            assert choose(state, ask, request) is None, "decided twice"
    assert [entry.turn.version for entry in state.entries] == list(range(1, state.version + 1))
    assert len({entry.request for entry in state.entries}) == state.version
    assert len(set(ids)) == len(ids)


def test_two_writers_of_one_version_make_two_ids() -> None:
    """Otherwise the broker's deduplication would take one for the other and lose a turn."""
    opened = choose(NOTHING, OpenSession(session="s"), "o")
    state = evolve(NOTHING, opened)  # type: ignore[arg-type]
    turn = AppendTurn(session="s", expected=0, role="user", content=msgspec.Raw(b"1"))
    assert choose(state, turn, "r1").id != choose(state, turn, "r2").id  # type: ignore[attr-defined]


def test_another_name_with_the_same_token_is_refused() -> None:
    """Names become subject tokens; two that meet there are told apart."""
    state = evolve(NOTHING, choose(NOTHING, OpenSession(session="a-b"), "o"))  # type: ignore[arg-type]
    with pytest.raises(ConflictError, match="same token"):
        choose(state, OpenSession(session="other"), "o")


def test_otp_s9_a_history_with_a_gap_is_corrupt() -> None:
    """Nobody is answered from it."""
    opened = choose(NOTHING, OpenSession(session="s"), "o")
    state = evolve(NOTHING, opened)  # type: ignore[arg-type]
    first = choose(state, AppendTurn(session="s", expected=0, role="user", content=msgspec.Raw(b"1")), "r1")
    later = evolve(state, first)  # type: ignore[arg-type]
    second = choose(later, AppendTurn(session="s", expected=1, role="user", content=msgspec.Raw(b"1")), "r2")
    for broken, event in ((state, second), (NOTHING, first), (later, first), (state, opened)):
        with pytest.raises(CorruptError):
            evolve(broken, event)  # type: ignore[arg-type]
