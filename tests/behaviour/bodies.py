"""A step of every kind whose result, time and failure can be chosen: what the tables of pairs and keys are made of."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.pipeline.functions import as_text
from headrace.pipeline.plan import approval_hash
from tests.behaviour.world import Act

INPUTS: Final = {"x": {"default": 7}, "zero": {"type": "integer", "default": 0}}


def pipeline(
    steps: Mapping[str, Any], *, name: str = "p", outputs: Mapping[str, Any] | None = None, **more: Any
) -> str:
    """The text of a pipeline of these steps."""
    return json.dumps(
        {"pipeline": name, "inputs": INPUTS, **more, "outputs": dict(outputs or {}), "steps": dict(steps)}
    )


TAKER: Final = json.dumps(
    {
        "pipeline": "taker",
        "inputs": {"v": {"default": None}, "how": {"type": "object", "default": {}}},
        "outputs": {"v": "${{ steps.do.output }}"},
        "steps": {
            "do": {
                "tool": "play.do",
                "with": {
                    "give": "${{ inputs.v }}",
                    **{name: f"${{{{ inputs.how.?{name}.orValue(0) }}}}" for name in ("ms", "hang", "fail")},
                    "fatal": "${{ inputs.how.?fatal.orValue(false) }}",
                    "tally": "${{ inputs.how.?tally.orValue(run.id) }}",
                },
                "retry": {"attempts": 1},
            }
        },
    }
)
"""A child that gives what it was given, and does what `how` says."""
BESIDE: Final = (TAKER,)
SIGNAL_EVERY_S: Final = 0.03


def expr(source: str) -> str:
    """As a value of a field."""
    return f"${{{{ {source} }}}}"


@dataclass(slots=True, frozen=True)
class Body:
    """How a kind of step is made to do something."""

    kind: str
    step: Callable[..., dict[str, Any]]
    """`step(expression, **how)`: it gives the expression's value as far as its kind can; `how` is for the callee."""
    gives: Callable[..., Any]
    """`gives(value, nth)`: its output then; `nth` is the number of the signal that it got."""
    failing: Callable[[str, str], dict[str, Any]]
    """`failing(condition, expression)`: it fails for good where the condition holds."""
    at_once: bool = False
    """It takes no time, so nothing can be slow or tried again."""
    far: bool = False
    """Its calls are those of another run."""
    null: bool = False
    """Its output is null."""
    fails_for_all: bool = False
    """It cannot fail for one item alone."""
    acts: Callable[[int], tuple[Act, ...]] = field(default=lambda sent: ())
    """What somebody has to do meanwhile, so many times."""


def _tool(source: str, **how: Any) -> dict[str, Any]:
    return {"tool": "play.do", "with": {"give": expr(source), **how}}


def _llm(source: str, **how: Any) -> dict[str, Any]:
    return {"llm": {"model": "play/x", "allow_unpriced": True, "prompt": expr(f"text({source})"), "options": how}}


def _inner(source: str, **how: Any) -> dict[str, Any]:
    step = _tool(source, **how) | {"retry": {"attempts": 1}}
    return {"steps": {"x": step}, "outputs": {"v": "${{ steps.x.output }}"}}


def _signal(source: str, **how: Any) -> dict[str, Any]:
    del source, how
    return {"signal": {"name": "go"}}


def _signals(sent: int) -> tuple[Act, ...]:
    return tuple(
        Act(SIGNAL_EVERY_S * (number + 1), "run-signal", {"name": "go", "payload": {"nth": number}})
        for number in range(sent)
    )


class Instant:
    """Equal to every instant as the log writes it."""

    def __eq__(self, other: object) -> bool:
        """Whether it looks like one."""
        return isinstance(other, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", other) is not None

    __hash__ = None  # type: ignore[assignment]  # nothing that equals so much has one


def _approvals(sent: int) -> tuple[Act, ...]:
    """Somebody answers wherever the step may ask, again and again: what is not asked yet cannot be answered."""
    return tuple(
        Act(
            SIGNAL_EVERY_S * (number + 1) + later_s,
            "run-approve",
            {"step": step, "hash": approval_hash({"message": "Go on?"}), "by": "ann"},
        )
        for number in range(sent)
        for step in ("s", f"s[{number}]", f"s({number})")
        for later_s in (0.0, 0.1, 0.3)
    )


def _wrapped(value: Any, nth: int = 0) -> Any:
    return {"v": value}


def _same(value: Any, nth: int = 0) -> Any:
    return value


BODIES: Final[dict[str, Body]] = {
    body.kind: body
    for body in (
        Body("tool", _tool, _same, lambda when, source: _tool(source, fatal=expr(when))),
        Body(
            "llm",
            _llm,
            lambda value, nth=0: {"text": as_text(value), "model": "play/x", "finish_reason": "stop"},
            lambda when, source: _llm(source, fatal=expr(when)),
        ),
        Body(
            "transform",
            lambda source, **how: {"transform": expr(source)},
            _same,
            lambda when, source: {"transform": expr(f"({when}) ? 1 / inputs.zero : {source}")},
            at_once=True,
        ),
        Body(
            "pipeline",
            lambda source, **how: {"pipeline": "taker", "with": {"v": expr(source), "how": how}},
            _wrapped,
            lambda when, source: {"pipeline": "taker", "with": {"v": expr(source), "how": {"fatal": expr(when)}}},
            far=True,
        ),
        Body("steps", _inner, _wrapped, lambda when, source: _inner(source, fatal=expr(when))),
        Body(
            "switch",
            lambda source, **how: {"switch": [{"default": _inner(source, **how)}]},
            _wrapped,
            lambda when, source: {"switch": [{"default": _inner(source, fatal=expr(when))}]},
        ),
        Body(
            "wait",
            lambda source, **how: {"wait": {"for": f"{how.get('ms', 10)}ms"}},
            lambda value, nth=0: None,
            lambda when, source: {"wait": {"for": expr(f"({when}) ? 'never' : '10ms'")}},
            null=True,
        ),
        Body(
            "signal",
            _signal,
            lambda value, nth=0: {"nth": nth},
            lambda when, source: {"signal": {"name": "go", "timeout": "50ms"}},
            fails_for_all=True,
            acts=_signals,
        ),
        Body(
            "approval",
            lambda source, **how: {"approval": {"message": "Go on?"}},
            lambda value, nth=0: {"decision": "approved", "by": "ann", "at": Instant(), "comment": ""},
            lambda when, source: {"approval": {"message": "Go on?", "timeout": "50ms"}},
            fails_for_all=True,
            acts=_approvals,
        ),
        Body(
            "emit",
            lambda source, **how: {"emit": {"name": "told", "data": expr(source)}},
            lambda value, nth=0: None,
            lambda when, source: {"emit": {"name": "told", "data": expr(f"({when}) ? 1 / inputs.zero : {source}")}},
            null=True,
        ),
    )
}
