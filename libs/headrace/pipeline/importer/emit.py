"""A new document as YAML that people read: keys in a fixed order, long text below `|`, comments where meaning differs.

PyYAML writes the scalars and the structure; the comments are put above the keys whose places our own loader finds in
the text, which at the same time proves that the text reads back as the document.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from headrace.pipeline.loader import load_bytes
from headrace.pipeline.positions import Path
from headrace.pipeline.problems import RefusedDefinitionError

_WIDTH: Final = 1_000_000
"""Text is never folded: a folded line reads as two."""
_FLOW_CHARS_MAX: Final = 70
"""A small map or list is written on one line."""
_OTHER: Final = re.compile(r"[-+]?[.]?[0-9][0-9._eExoA-Fa-f+-]*|[-+]?\.(?:inf|nan)|~|null|true|false|", re.ASCII | re.I)
"""What our loader reads, or might read, as something else than text."""
_NO_BLOCK = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u2028\u2029\ufeff]")


_ON: Final = "tag:yaml.org,2002:bool"
"""What PyYAML takes the word for: with this tag it writes it as it is."""


class _Dumper(yaml.SafeDumper):
    """Lets text with blanks at the ends of lines stand below `|`, where PyYAML would write escapes."""

    def analyze_scalar(self, scalar: str) -> Any:
        """As PyYAML, but what can be read back from a block may stand in one."""
        analysis = super().analyze_scalar(scalar)
        if "\n" in scalar and not _NO_BLOCK.search(scalar):
            analysis.allow_block = True
        return analysis


def as_yaml(document: Mapping[str, Any], comments: Mapping[Path, Sequence[str]], header: Sequence[str]) -> str:
    """The document as YAML text.

    Args:
        comments: Lines to put above the key at a path, or the nearest key around it.
        header: Lines at the top.

    Raises:
        RefusedDefinitionError: the text would be larger or deeper than a definition may be.
    """
    text = _written(document, careful=False)
    try:
        loaded = load_bytes(text.encode(), "converted")
        if loaded.document != document:
            raise _UnequalError
    except (_UnequalError, RefusedDefinitionError):
        text = _written(document, careful=True)  # a block or a plain word cannot hold it after all; escapes can
        loaded = load_bytes(text.encode(), "converted")
        assert loaded.document == document
    above: dict[int, list[str]] = {}
    for path, lines in comments.items():
        event = None
        while path and event is None:
            event = loaded.positions.keys.get(path)
            path = path[:-1]
        if event is not None:
            start = text.rfind("\n", 0, event.start_mark.index) + 1
            indent = " " * (event.start_mark.index - start)
            above.setdefault(start, []).extend(f"{indent}# {_on_one_line(line)}\n" for line in lines)
    made = [f"# {_on_one_line(line)}\n" for line in header]
    at = 0
    for start in sorted(above):
        made += [text[at:start], *above[start]]
        at = start
    return "".join([*made, text[at:]])


def _on_one_line(text: str) -> str:
    return _NO_BLOCK.sub("?", " ".join(text.split()))


class _UnequalError(Exception):
    """The text does not read back as the document."""


def _written(document: Mapping[str, Any], *, careful: bool) -> str:
    node = _node(document, 0, careful=careful)
    return str(yaml.serialize(node, Dumper=_Dumper, allow_unicode=True, width=_WIDTH))


def _node(value: Any, depth: int, *, careful: bool) -> Any:
    match value:
        case dict():
            pairs = [
                (_scalar(key, careful=careful, is_key=True), _node(inner, depth + 1, careful=careful))
                for key, inner in value.items()
            ]
            in_line = not value or (depth > 2 and _small(value))
            return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=in_line)
        case list():
            entries = [_node(inner, depth + 1, careful=careful) for inner in value]
            return yaml.SequenceNode("tag:yaml.org,2002:seq", entries, flow_style=not value or _small(value))
        case str():
            return _scalar(value, careful=careful)
        case bool():
            return yaml.ScalarNode("tag:yaml.org,2002:bool", str(value).lower())
        case None:
            return yaml.ScalarNode("tag:yaml.org,2002:null", "null")
        case int():
            return yaml.ScalarNode("tag:yaml.org,2002:int", str(value))
    return yaml.ScalarNode("tag:yaml.org,2002:float", _float(value))


def _float(value: float) -> str:
    text = repr(value)
    return text if "." in text or "e" not in text else text.replace("e", ".0e")


def _scalar(text: str, *, careful: bool, is_key: bool = False) -> Any:
    tag = "tag:yaml.org,2002:str"
    if careful:
        return yaml.ScalarNode(tag, text, style='"')
    if "\n" in text:
        return yaml.ScalarNode(tag, text, style='"' if is_key else "|")
    if text == "on" and is_key:
        return yaml.ScalarNode(_ON, text)  # a word like any other in YAML 1.2
    return yaml.ScalarNode(tag, text, style='"' if _OTHER.fullmatch(text) else None)


def _small(value: Any) -> bool:
    """Whether it fits on a line: few scalars, or small maps of scalars."""
    inner = value.values() if isinstance(value, dict) else value
    if any("\n" in entry for entry in inner if isinstance(entry, str)):
        return False
    if any(isinstance(entry, (dict, list)) and not _flat(entry) for entry in inner):
        return False
    return len(str(value)) <= _FLOW_CHARS_MAX


def _flat(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return all(not isinstance(entry, (dict, list)) and "\n" not in str(entry) for entry in inner)
