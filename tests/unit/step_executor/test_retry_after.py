"""Row 43: what is believed of Retry-After."""

import pytest

from headrace_step_executor.retry_after import retry_after_ms

NOW_MS = 1_764_072_000_000  # Tue, 25 Nov 2025 12:00:00 GMT


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, 0), ("", 0), ("0", 0), ("3", 3000), ("1.5", 1500), ("-1", 0), ("86400", 600_000), ("soon", 0), ("inf", 0),
     ("1e9", 0), ("9" * 400, 600_000), ("Tue, 25 Nov 2025 12:00:05 GMT", 5000), ("Tue, 25 Nov 2025 11:00:00 GMT", 0),
     ("Tue, 25 Nov 2099 11:00:00 GMT", 600_000), ("Tue, 99 Nov 2025 11:00:00 GMT", 0), ("٣", 0)],
)  # fmt: skip
def test_input_43_retry_after_is_a_floor_within_bounds(text: str | None, expected: int) -> None:
    """Seconds or a date, at most ten minutes; garbage, negative and past values are ignored."""
    assert retry_after_ms(text, now_ms=NOW_MS) == expected
