"""Who is alive, as a fold of beats."""

from headrace.contracts.live import Beat, Held
from headrace_monitor.health import (
    FORGET_S,
    PROCESSES_MAX,
    Presences,
    fallen_silent,
    forget,
    hear,
    service_rows,
)


def beat(counter: int = 1, instance: str = "i", **more: object) -> Beat:
    return Beat(service="step-executor", instance=instance, boot="b", counter=counter, ready=True, **more)


def test_silence_is_told_once_and_ends_with_the_next_beat() -> None:
    """An alert is raised once, and cleared by the process it is about."""
    presences = Presences()
    hear(presences, beat(1), now_s=0)
    assert list(fallen_silent(presences, now_s=4.9, silent_s=5.0)) == []
    (silent,) = fallen_silent(presences, now_s=5, silent_s=5.0)
    silent.silent = True
    assert list(fallen_silent(presences, now_s=6, silent_s=5.0)) == []
    assert hear(presences, beat(2), now_s=7) is silent
    assert list(fallen_silent(presences, now_s=8, silent_s=5.0)) == []


def test_who_says_goodbye_is_not_missed() -> None:
    """A clean stop is no silence."""
    presences = Presences()
    hear(presences, beat(1), now_s=0)
    hear(presences, beat(2, leaving=True), now_s=1)
    assert service_rows(presences, now_s=100, silent_s=5.0) == ()


def test_the_silent_are_forgotten_after_ten_minutes() -> None:
    """The list is about now."""
    presences = Presences()
    hear(presences, beat(), now_s=0)
    assert [gone.beat.instance for gone in forget(presences, now_s=FORGET_S)] == ["i"]
    assert presences.processes == {}


def test_the_number_of_orders_in_hand_follows_the_beats() -> None:
    """A full list corrects what lost beats have left wrong."""
    one, two = (Held(run="r", path=path, attempt=1, offer=1) for path in "ab")
    presences = Presences()
    for said in (beat(1, taken=(one, two)), beat(2, finished=(one,)), beat(3)):
        hear(presences, said, now_s=0)
    assert service_rows(presences, now_s=0, silent_s=5.0)[0].held == 1
    hear(presences, beat(10, full=()), now_s=0)
    assert service_rows(presences, now_s=0, silent_s=5.0)[0].held == 0


def test_the_list_of_processes_is_bounded() -> None:
    """Beats are not authenticated by content; a flood of names costs a bounded amount."""
    presences = Presences()
    for index in range(PROCESSES_MAX + 5):
        hear(presences, beat(instance=f"i{index}"), now_s=0)
    assert (len(presences.processes), presences.refused) == (PROCESSES_MAX, 5)
