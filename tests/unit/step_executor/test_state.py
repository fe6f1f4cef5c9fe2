"""What an executor knows."""

import msgspec

from headrace.contracts import events
from headrace.contracts.live import Held
from headrace_step_executor.state import Catalogue, EndedRuns, Hands, Revoked

SPEC = events.ToolSpec(tool="t", version="1", description="d", args={})


def registered(spec: events.ToolSpec, tenant: str = "default") -> events.ToolRegistered:
    return events.ToolRegistered(specversion="1.0", id="i", source="s", time="t", schemaver=1, tenant=tenant, data=spec)


def disabled(tool: str, version: str, tenant: str = "default") -> events.ToolDisabled:
    data = events.ToolName(tool=tool, version=version)
    return events.ToolDisabled(specversion="1.0", id="i", source="s", time="t", schemaver=1, tenant=tenant, data=data)


def test_the_newest_enabled_version_is_called_and_compiled_in_ones_until_events_speak() -> None:
    """Disabling the newest brings the one before back; disabling all leaves none, not the compiled one."""
    catalogue = Catalogue({"t": SPEC})
    assert catalogue.find("default", "t") is SPEC
    two = msgspec.structs.replace(SPEC, version="2")
    catalogue.evolve(registered(SPEC))
    catalogue.evolve(registered(two))
    assert catalogue.find("default", "t") == two
    catalogue.evolve(disabled("t", "2"))
    assert catalogue.find("default", "t") == SPEC
    catalogue.evolve(disabled("t", "1"))
    assert catalogue.find("default", "t") is None
    assert catalogue.find("other", "t") is SPEC
    assert catalogue.find("default", "u") is None


def test_ended_runs_and_revocations_are_bounded() -> None:
    """The oldest go first; a revocation covers its offer and earlier ones, not later ones."""
    ended = EndedRuns(kept_max=2)
    for run in ("a", "b", "a", "c"):
        ended.add(run)
    assert ["a" in ended, "b" in ended, "c" in ended, len(ended)] == [True, False, True, 2]
    revoked = Revoked(kept_max=1)
    revoked.add(Held(run="r", path="p", attempt=1, offer=2))
    assert [revoked.covers(("r", "p", 1), offer) for offer in (1, 2, 3)] == [True, True, False]
    revoked.add(Held(run="r", path="p", attempt=2, offer=1))
    assert not revoked.covers(("r", "p", 1), 1)


def test_beats_tell_what_changed_since_the_last_one() -> None:
    """Taken and finished by difference: what came and went in between, or went and came back, is not told wrongly."""
    hands = Hands()
    hands.take(("r", "a", 1), 1)
    hands.take(("r", "b", 1), 1)
    hands.release(("r", "b", 1))
    assert hands.delta() == ((Held(run="r", path="a", attempt=1, offer=1),), ())
    hands.beat_sent()
    hands.release(("r", "a", 1))
    hands.take(("r", "a", 1), 1)
    assert hands.delta() == ((), ())
    hands.take(("r", "a", 1), 2)
    assert hands.delta() == ((Held(run="r", path="a", attempt=1, offer=2),), ())
    hands.beat_sent()
    hands.release(("r", "a", 1))
    assert hands.delta() == ((), (Held(run="r", path="a", attempt=1, offer=2),))


def test_input_54_a_changed_tool_has_no_version_that_may_be_called() -> None:
    """Until one of them is registered again, which is what an approval does."""
    catalogue, (old, older, new) = Catalogue({}), (msgspec.structs.replace(SPEC, version=name) for name in "abc")
    for spec in (old, older):
        catalogue.evolve(registered(spec))
    changed = events.ToolChanged(
        specversion="1.0", id="i", source="s", time="t", schemaver=1, tenant="default", data=new
    )
    catalogue.evolve(changed)
    assert catalogue.find("default", "t") is None
    catalogue.evolve(registered(new))
    assert catalogue.find("default", "t") == new
