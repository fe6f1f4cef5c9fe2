"""Parking keeps bytes, reason and place."""

import pytest

from headrace.contracts import codec
from headrace.contracts.failure import Failure
from headrace.runtime.eventlog import Stored
from headrace.runtime.park import BODY_BYTES_MAX, parked, tenant_of

WHY = Failure(code="malformed_message", message="no")


def stored(body: bytes = b"\xff\x00", **fields: object) -> Stored:
    given: dict[str, object] = {"stream": "HR_RUNS_0", "seq": 7, "subject": "hr.evt.acme.p.00.r.order.tool"}
    return Stored(body=body, time_ms=1, **(given | fields))  # type: ignore[arg-type]


def test_parking_twice_is_parking_once() -> None:
    """The id is stream and sequence, whatever the time and the reason; the bytes come back as they were."""
    first = parked(stored(), WHY, deliveries=1, source="a", now_ms=1)
    again = parked(stored(), Failure(code="x", message="y"), deliveries=9, source="b", now_ms=99)
    other = parked(stored(seq=8), WHY, deliveries=1, source="a", now_ms=1)
    assert first.id == again.id != other.id
    read = codec.decode(codec.encode(first))
    assert read == first
    assert first.data.body == b"\xff\x00"


def test_what_is_too_large_for_a_message_is_cut_and_says_so() -> None:
    """Bodies over 600 kB and endless headers; the whole size is noted."""
    big = parked(stored(b"x" * 1_000_000), WHY, deliveries=1, source="a", now_ms=1)
    assert (len(big.data.body), big.data.headers) == (BODY_BYTES_MAX, {"headrace-cut": "1000000"})
    many = {f"h{index}": "v" * 1000 for index in range(100)}
    headers = parked(stored(headers=many), WHY, deliveries=1, source="a", now_ms=1).data.headers
    assert headers["headrace-headers-cut"] == "100"
    assert len(codec.encode(big)) < 1 << 20


@pytest.mark.parametrize(
    ("subject", "tenant"),
    [("hr.cmd.acme.x", "acme"), ("hr.cmd", "default"), ("other.a.b", "default"), ("hr.evt.bad tenant.x", "default"),
     ("hr.cmd.\udcff.x", "default")],
)  # fmt: skip
def test_the_tenant_is_the_subjects_or_the_default(subject: str, tenant: str) -> None:
    """Whatever a subject holds, the message can be parked."""
    assert tenant_of(subject) == tenant
    assert parked(stored(subject=subject), WHY, deliveries=1, source="a", now_ms=1).tenant == tenant
