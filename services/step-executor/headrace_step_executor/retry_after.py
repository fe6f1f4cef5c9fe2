"""`Retry-After`, believed within bounds: seconds or an HTTP date; anything else counts as silence."""

from email.utils import parsedate_to_datetime

from headrace.contracts import names


def retry_after_ms(text: str | None, *, now_ms: int) -> int:
    """Milliseconds to wait at least, 0 for nothing, at most ten minutes.

    Args:
        now_ms: Broker time, for the date form. A past date, a negative number and garbage give 0.
    """
    if not text:
        return 0
    plain = text.strip()
    try:
        if plain.isascii() and plain.replace(".", "", 1).isdigit():
            wait_ms = int(float(plain[:20]) * 1000)
        else:
            wait_ms = int(parsedate_to_datetime(plain).timestamp() * 1000) - now_ms
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0
    return max(0, min(wait_ms, names.RETRY_AFTER_MS_MAX))
