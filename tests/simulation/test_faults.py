"""Fault plans: sparse, keyed, repeatable, and made small."""

from pathlib import Path

from tests.simulation.faults import Fault, Key, drawn, listed, load, save, shrink

CUT = Fault("cut", 1.0)


def passages(seed: int) -> list[tuple[str, str]]:
    """Faults of a seed over many passages of one site."""
    faults = drawn(seed)
    for _ in range(400):
        faults.at("executor-0", "publish report", ("cut", "late", "crash-before"))
    return [(str(key.nth), fault.kind) for key, fault in faults.reached.items()]


def test_a_seed_draws_the_same_faults_again() -> None:
    """And another seed others."""
    assert passages(3) == passages(3)
    assert len({tuple(passages(seed)) for seed in range(6)}) > 1


def test_a_fault_stays_where_it_is_when_another_is_left_out() -> None:
    """A key names the passage, not a place in a sequence of draws."""
    faults = listed({Key("a", "x", 2): CUT})
    assert [faults.at("a", "x", ("cut",)) for _ in range(3)] == [None, CUT, None]
    assert faults.at("b", "x", ("cut",)) is None


def test_nothing_happens_once_faults_are_over() -> None:
    """A healed world stays healed, and later passages are not counted."""
    faults = listed({Key("a", "x", 1): CUT})
    faults.active = False
    assert faults.at("a", "x", ("cut",)) is None
    assert not faults.reached


def test_shrinking_keeps_what_matters() -> None:
    """Two faults of forty that only together do harm."""
    plan = {Key("a", "x", nth): CUT for nth in range(1, 41)}
    guilty = {Key("a", "x", 7), Key("a", "x", 33)}
    assert set(shrink(plan, lambda part: guilty <= set(part))) == guilty


def test_shrinking_to_nothing_is_allowed() -> None:
    """Where the order of callbacks alone does the harm."""
    assert shrink({Key("a", "x", 1): CUT}, lambda part: True) == {}


def test_a_kept_plan_is_read_back(tmp_path: Path) -> None:
    """As it was written."""
    plan = {Key("a", "publish decision", 3): Fault("late", 12.5)}
    save(tmp_path / "p.json", seed=9, plan=plan, why="it broke", settled=True)
    kept = load(tmp_path / "p.json")
    assert (kept.seed, kept.plan, kept.why, kept.settled) == (9, plan, "it broke", True)
