"""What headers say is left of a credential's limits, as OpenAI's wire and Anthropic's write it."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from headrace_step_executor.providers.messages import Quota

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_MS: Final[Mapping[str, float]] = {"ms": 1, "s": 1e3, "m": 6e4, "h": 3.6e6, "d": 8.64e7}
RESET_MS_MAX: Final = 86_400_000
"""Limits are per minute, some per day; a longer wait is a mistake of whoever wrote it."""


def openai_quota(headers: Mapping[str, str]) -> Quota | None:
    """From `x-ratelimit-limit-requests`, `…-remaining-…`, `…-reset-…` (`6m0s`, `20ms`) and the same of tokens."""
    return _quota(
        {
            "requests_limit": _number(headers.get("x-ratelimit-limit-requests")),
            "requests_left": _number(headers.get("x-ratelimit-remaining-requests")),
            "requests_reset_ms": _span_ms(headers.get("x-ratelimit-reset-requests")),
            "tokens_limit": _number(headers.get("x-ratelimit-limit-tokens")),
            "tokens_left": _number(headers.get("x-ratelimit-remaining-tokens")),
            "tokens_reset_ms": _span_ms(headers.get("x-ratelimit-reset-tokens")),
        }
    )


def anthropic_quota(headers: Mapping[str, str], *, now_ms: int) -> Quota | None:
    """From `anthropic-ratelimit-requests-limit`, `…-remaining`, `…-reset` (an instant) and the same of tokens."""
    return _quota(
        {
            "requests_limit": _number(headers.get("anthropic-ratelimit-requests-limit")),
            "requests_left": _number(headers.get("anthropic-ratelimit-requests-remaining")),
            "requests_reset_ms": _instant_ms(headers.get("anthropic-ratelimit-requests-reset"), now_ms),
            "tokens_limit": _number(headers.get("anthropic-ratelimit-tokens-limit")),
            "tokens_left": _number(headers.get("anthropic-ratelimit-tokens-remaining")),
            "tokens_reset_ms": _instant_ms(headers.get("anthropic-ratelimit-tokens-reset"), now_ms),
        }
    )


def _quota(fields: dict[str, int]) -> Quota | None:
    return Quota(**fields) if any(number >= 0 for number in fields.values()) else None


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else -1


def _span_ms(text: str | None) -> int:
    found = _SPAN.findall(text or "")
    if not found or "".join(number + unit for number, unit in found) != text:
        return -1
    return min(RESET_MS_MAX, int(sum(float(number) * _UNIT_MS[unit] for number, unit in found)))


def _instant_ms(text: str | None, now_ms: int) -> int:
    try:
        instant = datetime.fromisoformat(text or "")
    except ValueError:
        return -1
    if instant.tzinfo is None:
        return -1
    return max(0, min(RESET_MS_MAX, int(instant.timestamp() * 1000) - now_ms))
