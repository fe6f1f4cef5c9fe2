"""Tools for pipelines: `headrace worker examples/tools/words.py`, beside a system that `headrace up` runs."""

import re
from typing import Annotated

import msgspec

from headrace.client.tool import AttemptError, tool


class Count(msgspec.Struct):
    """How often a word stands in a text."""

    word: str
    times: int


@tool(version="1", effect="pure")
def frequent(text: str, limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3) -> list[Count]:
    """The most frequent words of a text, the most frequent first."""
    counts: dict[str, int] = {}
    for word in re.findall(r"\w+", text.lower()):
        counts[word] = counts.get(word, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Count(word=word, times=times) for word, times in ordered[:limit]]


@tool(version="1", effect="pure")
def longest(text: str) -> str:
    """The longest word of a text."""
    words = re.findall(r"\w+", text)
    if not words:
        code = "no_words"
        raise AttemptError(code, "the text has no word", retryable=False)
    return max(words, key=len)
