"""S9: a probe that fails says so; unknown counts as over the limit, never as zero."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.failure import Failure
from headrace.runtime.clock import SystemClock
from headrace.runtime.probes import Admission, ProbeError, Usage, disk, memory


def fake_proc(root: Path, *, statm: bytes | None = b"100 50 1", meminfo: bytes | None = b"MemTotal: 1000 kB") -> Path:
    (root / "self").mkdir(parents=True, exist_ok=True)
    for name, content in (("self/statm", statm), ("meminfo", meminfo)):
        if content is not None:
            (root / name).write_bytes(content)
    return root


def test_memory_of_this_process_is_measured() -> None:
    """The real files of the real kernel."""
    usage = memory()
    assert 1_000_000 < usage.used < usage.limit


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "500000", 500_000),
        ("memory.max", "max", 1_024_000),
        ("memory/memory.limit_in_bytes", "400000", 400_000),
        ("memory/memory.limit_in_bytes", "9223372036854771712", 1_024_000),
    ],
)
def test_the_least_limit_counts(tmp_path: Path, name: str, text: str, limit: int) -> None:
    """cgroup v2, cgroup v1, and the machine."""
    (tmp_path / "cgroup/memory").mkdir(parents=True)
    (tmp_path / "cgroup" / name).write_text(text)
    assert memory(fake_proc(tmp_path / "proc"), tmp_path / "cgroup").limit == limit


def test_otp_s9_an_unreadable_proc_is_an_error(tmp_path: Path) -> None:
    """Not 0 bytes."""
    with pytest.raises(ProbeError, match="memory: FileNotFoundError"):
        memory(tmp_path, tmp_path)


@given(statm=st.none() | st.binary(max_size=40), meminfo=st.none() | st.binary(max_size=60))
def test_otp_s9_whatever_proc_says_is_a_sane_number_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, statm: bytes | None, meminfo: bytes | None
) -> None:
    """Garbage never becomes a number that admits work."""
    root = tmp_path_factory.mktemp("proc")
    try:
        usage = memory(fake_proc(root, statm=statm, meminfo=meminfo), root)
    except ProbeError:
        return
    assert usage.used > 0
    assert usage.limit > 0


def test_otp_s9_an_unreadable_limit_is_an_error(tmp_path: Path) -> None:
    """A limit that exists and cannot be understood is not "no limit"."""
    (tmp_path / "memory.max").write_text("lots")
    with pytest.raises(ProbeError):
        memory(fake_proc(tmp_path / "proc"), tmp_path)


def test_otp_s9_a_disk_that_cannot_be_asked_is_an_error(tmp_path: Path) -> None:
    """Nor is it empty."""
    assert disk(tmp_path).limit > 0
    with pytest.raises(ProbeError, match="disk"):
        disk(tmp_path / "missing")


def admission(probe: object, probe_disk: object = None) -> Admission:
    return Admission(
        None,  # type: ignore[arg-type]  # these tests write no alert
        clock=SystemClock(),
        source="/scheduler/t",
        tenant="default",
        probe_memory=probe,  # type: ignore[arg-type]
        probe_disk=probe_disk,  # type: ignore[arg-type]
    )


def failing() -> Usage:
    msg = "unreadable"
    raise ProbeError(msg)


@pytest.mark.parametrize(
    ("probe", "probe_disk", "code"),
    [
        (lambda: Usage(80, 100), None, None),
        (lambda: Usage(81, 100), None, "memory_full"),
        (failing, None, "probe_failed"),
        (lambda: Usage(1, 100), failing, "probe_failed"),
        (lambda: Usage(1, 100), lambda: Usage(10**12 - 1, 10**12), "disk_full"),
        (lambda: Usage(1, 100), lambda: Usage(0, 10**12), None),
    ],
)
def test_otp_s9_unknown_counts_as_over_the_limit(probe: object, probe_disk: object, code: str | None) -> None:
    """New work is refused with a reason, and may be tried again."""
    gate = admission(probe, probe_disk)
    first = gate.refusal()
    gate.probe()
    found = gate.refusal()
    assert isinstance(first, Failure)
    assert first.code == "not_probed"
    assert (found.code if found else None) == code
    assert found is None or found.retryable
