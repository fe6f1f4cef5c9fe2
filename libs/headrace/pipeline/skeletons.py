"""What is left of an expression when the names of fields and the numbers it compares with are taken out.

Two expressions with one skeleton compile alike: fields are looked up in values whose type only the data tells, and a
comparison asks for the type of its number, not for the number. Files have many expressions and few skeletons
(`steps.a.output.count > 3`, `steps.b.output.size > 7`), and compiling takes ten times as long as reading.
"""

import re
from typing import Final

from headrace.pipeline.cel_library import COMPILED_ROOTS, RESERVED

_PIECE = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<string>[rRbB]{0,2}(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''
               |"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
  | (?P<number>\d[\w.]*)
  | (?P<chain>[A-Za-z_]\w*(?:\.\??[A-Za-z_]\w*)+)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_CHAIN_STEP = re.compile(r"(\.\??)")
_PLAIN_INT = re.compile(r"\d{1,18}", re.ASCII)
"""Without overflow, which is an error when compiled."""
_COMPARES: Final = frozenset("=<>")
_FIELD: Final = "f_"
"""How the skeleton's fields begin; nobody else's do, or the source is its own skeleton."""


def skeleton_of(source: str) -> tuple[str, tuple[str, ...]]:
    """The skeleton, and the fields taken out: `f_0` stands for the first of them, and so on."""
    if _FIELD in source:
        return source, ()
    parts: list[str] = []
    fields: dict[str, int] = {}
    before = before_that = ""
    is_chain = False
    for match in _PIECE.finditer(source):
        kind, text = match.lastgroup, match[0]
        if kind == "space":
            parts.append(" ")
            continue
        written = text
        if kind == "chain":  # most of an expression: in one piece it takes half as long
            names = _CHAIN_STEP.split(text)
            is_field = before == "." or (before == "?" and before_that == ".")
            if not is_field:
                is_chain = names[0] in COMPILED_ROOTS
            if is_chain:
                called = _is_call(source, match.end())
                for place in range(0 if is_field else 2, len(names), 2):
                    name = names[place]
                    if name not in RESERVED and not (called and place == len(names) - 1):
                        names[place] = f"{_FIELD}{fields.setdefault(name, len(fields))}"
                written = "".join(names)
            before_that, before = ".", names[-1]
            parts.append(written)
            continue
        if kind == "name":
            is_field = before == "." or (before == "?" and before_that == ".")
            if not is_field:
                is_chain = text in COMPILED_ROOTS
            elif is_chain and text not in RESERVED and not _is_call(source, match.end()):
                written = f"{_FIELD}{fields.setdefault(text, len(fields))}"
        elif kind == "number" and before in _COMPARES and _PLAIN_INT.fullmatch(text):
            written = "1"
            is_chain = False
        elif text not in (".", "?"):
            is_chain = False
        parts.append(written)
        before_that, before = before, text
    return "".join(parts), tuple(fields)


def _is_call(source: str, end: int) -> bool:
    return source[end:].lstrip()[:1] == "("


def filled(path: tuple[str, ...], fields: tuple[str, ...]) -> tuple[str, ...]:
    """A path of the skeleton with the fields that were taken out."""
    if not fields:
        return path
    return tuple(
        fields[int(step[len(_FIELD) :])] if step.startswith(_FIELD) and step[len(_FIELD) :].isdecimal() else step
        for step in path
    )
