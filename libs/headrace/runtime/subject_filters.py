"""Subject filters with the broker's wildcards: `*` is one token, `>` is one or more at the end. Pure."""

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

from headrace.contracts.errors import DataError

_BAD_HEADER: Final = re.compile(r"[\r\n]")


def check_subject(subject: str) -> None:
    """Raise DataError for a subject that the protocol cannot carry."""
    # No pattern: this is asked before every append, and these four answers take a quarter of its time.
    bad_token = not subject or subject[0] == "." or subject[-1] == "." or ".." in subject
    if bad_token or " " in subject or not subject.isprintable():
        msg = f"{subject!r} is no subject"
        raise DataError(msg)


def check_header(name: str, value: str) -> None:
    """Raise DataError for a line break, which would let a value write headers of its own."""
    if not name or ":" in name or _BAD_HEADER.search(name) or _BAD_HEADER.search(value):
        msg = f"header {name!r} has a character that headers cannot carry"
        raise DataError(msg)


def filter_regex(filters: Sequence[str]) -> re.Pattern[str]:
    """A pattern whose `fullmatch` says whether a subject matches any of the filters; without filters all do."""
    parts = []
    for one in filters:
        tokens = one.split(".")
        parts.append(r"\.".join({"*": r"[^.]+", ">": r".+"}.get(token, re.escape(token)) for token in tokens))
    return re.compile("|".join(f"(?:{part})" for part in parts) or r".+")


def common_filter(filters: Sequence[str]) -> str:
    """The narrowest single filter that takes everything that the filters take."""
    common: list[str] = []
    for column in zip_longest(*(one.split(".") for one in filters)):
        if None in column:  # one filter ends here and another goes on: only `>` one token earlier takes both
            return ".".join([*common[:-1], ">"])
        if ">" in column:
            return ".".join([*common, ">"])
        common.append(column[0] if len(set(column)) == 1 else "*")
    return ".".join(common) or ">"


def overlap(one: str, other: str) -> bool:
    """Does some subject match both filters?"""
    for mine, theirs in zip_longest(one.split("."), other.split(".")):
        if mine is None or theirs is None:
            return False
        if ">" in (mine, theirs):
            return True
        if mine != theirs and "*" not in (mine, theirs):
            return False
    return True
