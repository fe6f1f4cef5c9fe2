"""YAML with positions, guarded: a hostile file costs no more than an honest one.

The size is checked before parsing, limits while walking the parser's *events*, before anything is built, because
composing 100,000 open brackets ends the process and 26 lines of merge keys run for 20 seconds. No tags, anchors,
aliases, merge keys, duplicate keys or second documents; YAML 1.2 core scalars, so `no` and `on` are text and `012` is
twelve; integers of 64 bits and finite numbers, so that every document is JSON.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from headrace.contracts.errors import InputFileError
from headrace.pipeline.functions import INT_MAX, INT_MIN
from headrace.pipeline.positions import Positions, Step
from headrace.pipeline.problems import PROBLEMS_MAX, Problem, RefusedDefinitionError, shown

DOCUMENT_BYTES_MAX: Final = 1024 * 1024
DEPTH_MAX: Final = 50
NODES_MAX: Final = 50_000
SCALAR_BYTES_MAX: Final = 256 * 1024

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", re.ASCII)
_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML calls not printable."""
_NOT_CHARACTERS = re.compile("[\x00\ud800-\udfff]")
_MAY_BE_OTHER: Final = frozenset(["", *"~+-.0123456789nNtTfF"])
"""How null, booleans and numbers begin."""
_BRACKETS = re.compile(r"[\[\]{}]|\"(?:[^\"\\]|\\.)*\"|'[^']*'")
_TAB_INDENT = re.compile(r" *\t")


@dataclass(slots=True)
class Loaded:
    """A document as JSON values, and where each of them stands."""

    file: str
    document: Any
    positions: Positions


def read_file(path: str | Path, *, bytes_max: int = DOCUMENT_BYTES_MAX) -> bytes:
    """The bytes of a regular file; one byte more than allowed when it is larger, so that the caller can refuse it.

    Raises:
        InputFileError: missing, no regular file (a FIFO is refused without blocking), unreadable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise InputFileError(msg) from error
    except ValueError as error:
        msg = f"{shown(str(path))}: {error}"
        raise InputFileError(msg) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = "is a directory" if stat.S_ISDIR(mode) else "is not a regular file"
            msg = f"{path}: {what}"
            raise InputFileError(msg)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(bytes_max + 1)
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise InputFileError(msg) from error
    finally:
        os.close(descriptor)


def load_file(path: str | Path) -> Loaded:
    """The document of a file. Raises as `read_file` and `load_bytes`."""
    return load_bytes(read_file(path), str(path))


def load_bytes(data: bytes, file: str) -> Loaded:
    """The document in YAML bytes.

    Raises:
        RefusedDefinitionError: with every problem found, at most 50.
    """
    if len(data) > DOCUMENT_BYTES_MAX:
        text = f"the file has more than {DOCUMENT_BYTES_MAX} bytes"
        raise RefusedDefinitionError(
            [Problem(file, 1, 1, "E1002", text, "move long text to files and read them with `file()`")]
        )
    text = _decoded(data, file)
    walk = _Walk(file, text)
    document = walk.document()
    if walk.problems:
        raise RefusedDefinitionError(walk.problems)
    return Loaded(file, document, walk.positions)


def _decoded(data: bytes, file: str) -> str:
    """The text, without a byte order mark.

    Raises:
        RefusedDefinitionError: not UTF-8, or with characters that YAML does not allow; names the byte offset.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
        text = "not UTF-8 at byte 0: this is UTF-16 or UTF-32"
        raise RefusedDefinitionError([Problem(file, 1, 1, "E1003", text, "save it as UTF-8")])
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    try:
        text = data[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        offset = error.start + start
        good = data[start:offset].decode("utf-8")
        line, column = _line_column(good, len(good))
        found = f"not UTF-8 at byte {offset} (0x{data[offset]:02x})"
        raise RefusedDefinitionError([Problem(file, line, column, "E1003", found, "save it as UTF-8")]) from error
    bad = _NOT_TEXT.search(text)
    if bad:
        line, column = _line_column(text, bad.start())
        offset = start + len(text[: bad.start()].encode())
        found = f"the character U+{ord(bad[0]):04X} at byte {offset} is not allowed"
        raise RefusedDefinitionError([Problem(file, line, column, "E1004", found, 'write it as an escape in "…"')])
    return text


def _line_column(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1


class _StopError(Exception):
    """The walk cannot go on; the problem is recorded."""


@dataclass(slots=True)
class _Open:
    """A map or list whose end has not come."""

    made: Any
    is_map: bool
    key: str | None = None
    """In a map: the key whose value comes next, None when a key comes next."""
    is_key: bool = False
    """A map or list that stands where a key should: reported, read over, thrown away."""


class _Walk:
    """One pass over the events: checks, builds values, notes positions."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self.positions = Positions(text)
        self.problems: list[Problem] = []
        self.nodes = 0
        self.documents = 0
        self.last: Any = None
        self.open: list[_Open] = []
        self.root: list[Any] = []

    def problem(self, event: Any, code: str, text: str, hint: str = "") -> None:
        """Record a problem at an event; enough of them end the walk."""
        mark = event.start_mark
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, code, text, hint))
        if len(self.problems) >= PROBLEMS_MAX:
            raise _StopError

    def document(self) -> Any:
        """The value of the only document; what it is worth only the problems tell."""
        try:
            self._walk()
        except _StopError:
            return None
        if not self.root or (self.root == [None] and not self.problems):
            self.problems.append(Problem(self.file, 1, 1, "E1001", "empty definition"))
            return None
        return self.root[0]

    def _walk(self) -> None:
        take = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._opened,
            yaml.SequenceStartEvent: self._opened,
            yaml.MappingEndEvent: self._closed,
            yaml.SequenceEndEvent: self._closed,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document_started,
        }
        for event in self._events():
            handler = take.get(event.__class__)
            if handler is not None:
                self.last = event
                handler(event)

    def _document_started(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            self.problem(event, "E1012", "one document expected", "remove what follows this `---`")
            raise _StopError

    def _events(self) -> Iterator[Any]:
        try:
            take = yaml.CSafeLoader(
                self.text
            ).get_event  # as `yaml.parse`, without asking before each whether there is one
            while (event := take()) is not None:
                yield event
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
            raise _StopError from None
        except yaml.YAMLError as error:
            self.problems.append(Problem(self.file, 1, 1, "E1006", f"not YAML: {error}"))
            raise _StopError from None

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        lines = self.text.split("\n")
        for near in (line, line - 1):
            tab = _TAB_INDENT.match(lines[near]) if 0 <= near < len(lines) else None
            if tab:
                self.problems.append(
                    Problem(self.file, near + 1, tab.end(), "E1005", "a tab cannot indent", "indent with spaces")
                )
                return
        if error.problem == "exceeded maximum nesting depth":
            self._too_deep()
            return
        what = ", ".join(part for part in (error.problem, error.context) if part)
        hint = _QUOTE if 0 <= line < len(lines) and "${{" in lines[line] else ""
        self.problems.append(Problem(self.file, line + 1, column + 1, "E1006", f"not YAML: {what}", hint))

    def _too_deep(self) -> None:
        """The parser looked 1,000 brackets ahead before the first event; find the one that is too many."""
        allowed = DEPTH_MAX - len(self.open)
        depth = 0
        for match in _BRACKETS.finditer(self.text, self.last.end_mark.index if self.last else 0):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
            if depth > allowed:
                line, column = _line_column(self.text, match.start())
                self.problems.append(Problem(self.file, line, column, "E1013", f"nesting deeper than {DEPTH_MAX}"))
                return
        self.problems.append(Problem(self.file, 1, 1, "E1013", f"nesting deeper than {DEPTH_MAX}"))

    def _checked(self, event: Any) -> None:
        """What every node must not be: one too many, an anchor, a tag."""
        self.nodes += 1
        if self.nodes > NODES_MAX:
            self.problem(event, "E1014", f"more than {NODES_MAX} nodes")
            raise _StopError
        if event.anchor is not None:
            self.problem(event, "E1007", f"anchors are not allowed (`&{shown(event.anchor)[1:-1]}`)", _NO_ANCHORS)
        if event.tag is not None:
            self.problem(event, "E1009", f"tags are not allowed ({shown(event.tag)[1:-1]})", "write the plain value")

    def _alias(self, event: Any) -> None:
        self.problem(event, "E1007", f"aliases are not allowed (`*{shown(event.anchor)[1:-1]}`)", _NO_ANCHORS)
        self._put(event, None, is_text=True)

    def _opened(self, event: Any) -> None:
        self._checked(event)
        if len(self.open) >= DEPTH_MAX:
            self.problem(event, "E1013", f"nesting deeper than {DEPTH_MAX}")
            raise _StopError
        is_map = event.__class__ is yaml.MappingStartEvent
        made: Any = {} if is_map else []
        parent = self.open[-1] if self.open else None
        is_key = parent is not None and parent.is_map and parent.key is None
        if parent is not None and is_key:
            self.problem(event, "E1011", f"a key is text, this is {shown(made)}", "write a plain word")
            parent.key = ""
        self.open.append(_Open(made, is_map, is_key=is_key))

    def _closed(self, _: Any) -> None:
        closed = self.open.pop()
        if not closed.is_key:
            self._value_done(closed.made)

    def _scalar(self, event: Any) -> None:
        self.nodes += 1
        if self.nodes > NODES_MAX or event.anchor is not None or event.tag is not None:
            self.nodes -= 1
            self._checked(event)
        value: str = event.value
        if len(value) * 4 > SCALAR_BYTES_MAX and len(value.encode("utf-8", "surrogatepass")) > SCALAR_BYTES_MAX:
            self.problem(event, "E1015", f"a scalar of more than {SCALAR_BYTES_MAX} bytes", "read it with `file()`")
        if event.style:
            if event.style == '"' and _NOT_CHARACTERS.search(value):
                self.problem(event, "E1004", "an escape gives NUL or half of a surrogate pair")
            self._put(event, value, is_text=True)
        elif value[:1] in _MAY_BE_OTHER:
            self._plain(event)
        else:
            self._put(event, value, is_text=True)

    def _plain(self, event: Any) -> None:
        """An unquoted scalar that may be something else than text."""
        value: str = event.value
        if value in _WORDS:
            self._put(event, _WORDS[value], is_text=False)
        elif _INT.fullmatch(value):
            self._put(event, self._integer(event), is_text=False)
        elif _FLOAT.fullmatch(value):
            self._put(event, self._float(event), is_text=False)
        elif _NOT_FINITE.fullmatch(value):
            self.problem(event, "E1017", f"{value} is not a finite number", "quote it if it is text")
            self._put(event, 0.0, is_text=False)
        else:
            self._put(event, value, is_text=True)

    def _integer(self, event: Any) -> int:
        digits: str = event.value
        base = {"0o": 8, "0x": 16}.get(digits[:2], 10)
        if len(digits) <= 40:
            number = int(digits[2:] if base != 10 else digits, base)
            if INT_MIN <= number <= INT_MAX:
                return number
        self.problem(event, "E1016", f"{shown(digits)[1:-1]} is outside the 64-bit range", "quote it if it is text")
        return 0

    def _float(self, event: Any) -> float:
        number = float(event.value)
        if number in (float("inf"), float("-inf")):
            self.problem(event, "E1017", f"{shown(event.value)[1:-1]} is not a finite number", "quote it if it is text")
            return 0.0
        return number

    def _put(self, event: Any, value: Any, *, is_text: bool) -> None:
        """A scalar is complete: it is the next key, or a value."""
        if self.open:
            parent = self.open[-1]
            if parent.is_map and parent.key is None:
                self._key(parent, event, value, is_text=is_text)
                return
        self._value_done(value)

    def _key(self, parent: _Open, event: Any, value: Any, *, is_text: bool) -> None:
        key = ""
        if not is_text:
            self.problem(event, "E1011", f"a key is text, this is {shown(value)}", "quote it")
        elif value == "<<" and not event.style:
            self.problem(event, "E1008", "merge keys are not allowed", "write the keys out")
        elif value is not None:
            key = value
        if key in parent.made and key:
            self._repeated(event, key)
        parent.key = key

    def _repeated(self, event: Any, key: str) -> None:
        path = (*(self._step(below) for below in self.open[:-1]), key)
        first = self.positions.keys[path].start_mark if path in self.positions.keys else event.start_mark
        text, place = f"`{shown(key)[1:-1]}` is here for the second time", f"{first.line + 1}:{first.column + 1}"
        self.problem(event, "E1010", text, f"the first is at {place}")

    @staticmethod
    def _step(around: _Open) -> Step:
        """Under which key or index the map or list inside stands."""
        return (around.key or "") if around.is_map else len(around.made)

    def _value_done(self, value: Any) -> None:
        if not self.open:
            self.root.append(value)
            return
        parent = self.open[-1]
        if parent.is_map:
            parent.made[parent.key] = value
            parent.key = None
        else:
            parent.made.append(value)


_QUOTE: Final = "quote the value, or put it below `|`: an expression may hold `: ` or `#`"
_NO_ANCHORS: Final = "write the value out; constants belong in `vars`"
