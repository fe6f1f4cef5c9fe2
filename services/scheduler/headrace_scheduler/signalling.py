"""Whether a signal may be sent: somebody may wait for it, and its payload fits. Pure."""

from typing import Any

from headrace.contracts.errors import NotFoundError, TerminalError
from headrace.contracts.failure import Failure
from headrace.pipeline.json_schemas import errors, validator
from headrace.pipeline.plan import Plan


class TooManySignalsError(TerminalError):
    """A run is sent more than it can ever take."""

    code = "limit_exceeded"


def refusals(plan: Plan, name: str, payload: Any) -> tuple[Failure, ...]:
    """Every reason why a signal is refused; none when it may be stored.

    Raises:
        NotFoundError: no step of the pipeline waits for such a signal.
    """
    awaited = [node.signal for node in plan.nodes if node.signal is not None and node.signal.name == name]
    if not awaited:
        known = sorted({node.signal.name for node in plan.nodes if node.signal is not None})
        message = f"pipeline `{plan.pipeline}` waits for no signal {name[:80]!r}; it knows {', '.join(known) or 'none'}"
        raise NotFoundError(message)
    found = []
    for signal in awaited:
        for path, text in errors(validator(signal.schema), payload):
            place = "".join(f"/{part}" for part in path)
            found.append(Failure(code="payload_invalid", message=f"signal `{name}`{place}: {text}"))
    return tuple(dict.fromkeys(found))
