"""What the executors that live can do, and whether a run asks for what none of them can.

Told before a run begins: a start that nobody could serve is refused with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headrace.contracts import names
from headrace.contracts.errors import TerminalError, UnavailableError
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Node, Plan
from headrace.pipeline.pricing import models_of
from headrace_scheduler.plans import Plans
from headrace_scheduler.tool_versions import ToolVersions

HEAR_S: Final = names.PRESENCE_FULL_EVERY * names.PRESENCE_BEAT_S
"""How long a scheduler listens before it takes silence for an answer: the beats of that time cannot all be lost."""


@dataclass(slots=True, frozen=True)
class Serving:
    """As the beats say."""

    heard_for_s: float
    executors: int
    queues: frozenset[str]
    secrets: frozenset[str]
    """`<tenant>/<name>`."""
    providers: frozenset[str]
    """Of models."""


@dataclass(slots=True, frozen=True)
class Served:
    """Answers whether anybody could serve a run."""

    plans: Plans
    serving: Callable[[], Serving]
    tool_versions: ToolVersions

    async def refusals(self, tenant: str, plan: Plan) -> list[Failure]:
        """Why a run of this plan cannot be served; empty also where no executor lives: those that come may have all.

        Raises:
            UnavailableError: something is missing, and nobody was listened to for long enough.
        """
        serving = self.serving()
        nodes = await _nodes_of(self.plans, tenant, plan, {plan.digest})
        missing = [
            Failure(code="secret_missing", message=f"no executor has the secret `{name}` in its HEADRACE_SECRETS_DIR")
            for name in sorted({name for node in nodes for name in node.secrets})
            if f"{tenant}/{name}" not in serving.secrets
        ]
        missing += [
            Failure(
                code="queue_unserved",
                message=f"no executor serves the queue `{queue}`; HEADRACE_STEP_EXECUTOR_QUEUES of one has to name it",
            )
            for queue in sorted({node.queue for node in nodes} - {*names.QUEUES})
            if queue not in serving.queues
        ]
        models = {model for node in nodes if node.kind == "llm" for model in models_of(node.spec.source)}
        missing += [
            Failure(
                code="provider_missing", message=f"model {model}: no executor can ask `{provider}`; does it have a key?"
            )
            for model in sorted(models)
            for provider in (model.partition("/")[0],)
            if provider not in serving.providers
        ]
        if missing and serving.heard_for_s < HEAR_S:
            message = "executors have not said yet what they have and serve"
            raise UnavailableError(message)
        return missing if serving.executors else []


async def _nodes_of(plans: Plans, tenant: str, plan: Plan, seen: set[str]) -> list[Node]:
    """The steps of this plan and of its child files."""
    found = list(plan.nodes)
    for node in plan.nodes:
        if node.child is None or not node.child.digest or node.child.digest in seen:
            continue
        seen.add(node.child.digest)
        try:
            child = await plans.get(tenant, node.child.digest)
        except TerminalError:
            continue  # its step fails, and says so
        found += await _nodes_of(plans, tenant, child, seen)
    return found
