"""A model's answer that has to fit a schema: read strictly, checked, and shown to the model again when it does not fit.

Pure: no clock, no random source, no IO.
"""

import json
import re
from typing import Any, Final

from headrace.contracts.errors import HeadraceError
from headrace.pipeline import json_schemas
from headrace.runtime.values import encode_checked

ANSWER_CHARS_MAX: Final = 4 * 1024 * 1024
"""A longer answer is no answer that a model gives in one turn."""
SHOWN_MAX: Final = 5
_FENCE: Final = re.compile(r"\s*```[A-Za-z]*\s*\n(.*)\n\s*```\s*", re.DOTALL)


class NotFittingError(Exception):
    """Why an answer does not fit, in words for the model."""


def value_of(text: str, checker: Any) -> bytes:
    """The JSON bytes of an answer that fits. A fence of Markdown around the whole is taken off.

    Args:
        checker: See json_schemas.validator.

    Raises:
        NotFittingError: no JSON, a key twice in one object, NaN, too large, too deep, or not as the schema says.
    """
    if len(text) > ANSWER_CHARS_MAX:
        msg = f"the answer has {len(text)} characters; at most {ANSWER_CHARS_MAX} are read"
        raise NotFittingError(msg)
    fenced = _FENCE.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text, object_pairs_hook=_once, parse_constant=_refuse)
        data = encode_checked(value)
    except RecursionError as error:
        msg = "the answer is nested too deep"
        raise NotFittingError(msg) from error
    except (ValueError, HeadraceError) as error:
        msg = f"the answer is not valid JSON: {error}"
        raise NotFittingError(msg) from error
    problems = json_schemas.errors(checker, value)
    if problems:
        shown = "; ".join(
            f"{'.'.join(map(str, path)) or 'the whole'}: {message}" for path, message in problems[:SHOWN_MAX]
        )
        msg = f"the answer does not fit the schema: {shown}"
        raise NotFittingError(msg)
    return data


def repair_request(problem: str) -> str:
    """What the model is told about its answer."""
    return f"{problem[:2000]}\nAnswer again, with nothing but JSON that fits the schema."


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # None
        msg = f"the key {twice[:80]!r} stands twice in one object"
        raise ValueError(msg)
    return made


def _refuse(constant: str) -> Any:
    msg = f"{constant} is no number of JSON"
    raise ValueError(msg)
