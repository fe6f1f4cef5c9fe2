"""Why a run, or a step of it, waits, was skipped, failed, was tried again or ended: one sentence a reason, and the
events that prove it.

Pure: told from the history and the plan that it names, as of an instant. Whoever has read nothing else can check it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from headrace.client.chronicle import Chronicle, Said, chronicle_of, is_inside, path_of, scope_of
from headrace.client.explain_steps import reason_of_end, reason_of_waiting, retries
from headrace.client.reasons import REASONS_MAX, Reason
from headrace.contracts import events as ev
from headrace.contracts.errors import NotFoundError
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Node, Plan, node_of, static_path

STARTING: Final = (ev.RunCreated, ev.RunForked, ev.RunResumed)
NESTED_MAX: Final = 20
"""Steps that a chain of reasons goes through; more than the engine nests."""


def explain(
    history: Iterable[tuple[int, ev.StoredMessage]],
    plan: Plan,
    *,
    step: str = "",
    now_ms: int,
    served: Collection[str] | None = None,
) -> list[Reason]:
    """The reasons why a run, or one of its steps, stands where it stands: at most REASONS_MAX, the most telling first.

    Args:
        history: (sequence, message) of the run, in stream order.
        step: An instance (`review[3]/fix`), or a step as the file has it (`review/fix`), which means all of its
            instances. Empty: the run.
        served: Queues that executors are known to serve; None when nobody was asked.

    Raises:
        NotFoundError: the pipeline has no such step.
    """
    teller = _Teller(chronicle_of(history), plan, now_ms, served)
    if step:
        teller.tell_step(step)
    else:
        teller.tell_run()
    return teller.shown()


@dataclass(slots=True)
class _Teller:
    chronicle: Chronicle
    plan: Plan
    now_ms: int
    served: Collection[str] | None
    reasons: dict[tuple[str, str, str], Reason] = field(default_factory=dict)
    """By what they say: nothing is said twice."""

    def shown(self) -> list[Reason]:
        """What was told, bounded."""
        told = list(self.reasons.values())
        left = len(told) - REASONS_MAX
        if left <= 0:
            return told
        return [*told[:REASONS_MAX], Reason("more", "", f"there are {left} more reasons; ask about one step", ())]

    def _say(self, reason: Reason) -> None:
        self.reasons.setdefault((reason.path, reason.code, reason.text), reason)

    # --- the run -----------------------------------------------------------------------------------

    def tell_run(self) -> None:
        """What the run's own events say, else what its living steps wait for."""
        for said in reversed(self.chronicle.of_run):
            if not isinstance(said.event, STARTING):
                self._tell_of_run(said)
            if isinstance(said.event, (*STARTING, ev.RunFailed, ev.RunCompleted, ev.RunCancelled)):
                break
        if self.reasons and self.ended:
            return
        self._tell_key()
        leaves = self.chronicle.open_leaves()
        for path in leaves:
            self._tell_leaf(path)
        if not leaves and not self.reasons:
            for node in self.plan.nodes:
                if node.block == 0 and node.standby_for is None and self.chronicle.last(node.path) is None:
                    self._tell_unbegun(node, node.path, 0)

    @property
    def ended(self) -> bool:
        """Nothing more will happen."""
        return any(isinstance(said.event, ev.RunFailed | ev.RunCompleted | ev.RunCancelled) for said in self._newest())

    def _newest(self) -> list[Said]:
        return self.chronicle.of_run[-1:]

    def _tell_of_run(self, said: Said) -> None:
        match said.event:
            case ev.RunCompleted(degraded=degraded):
                about = ", degraded: a step failed and was tolerated, or something stood in for it" if degraded else ""
                self._say(Reason("completed", "", f"the run completed{about}", (said.seq,)))
            case ev.RunFailed(failure=failure, path=path) | ev.RunFailing(failure=failure, path=path):
                over = isinstance(said.event, ev.RunFailed)
                self._tell_failure(said, failure, path, "failed" if over else "failing")
            case ev.RunCancelled(reason=reason) | ev.RunCancelling(reason=reason):
                over = isinstance(said.event, ev.RunCancelled)
                text = "the run was cancelled" if over else "the run is being cancelled"
                asked = self._input(ev.CancelRequested, said)
                self._say(Reason("cancelled" if over else "cancelling", "", _because(text, reason), (*asked, said.seq)))
            case ev.RunPaused(reason=reason):
                asked = self._input(ev.PauseRequested, said)
                text = _because("the run is paused", reason) + "; `headrace resume` lets it go on"
                self._say(Reason("pause", "", text, (*asked, said.seq)))
            case ev.RunBlocked(reason=reason, path=path):
                where = f"`{path}` blocks the run" if path else "the run is blocked"
                if self.chronicle.end(path) is None:
                    self._say(Reason("blocked", path, f"{where}: {reason}", (said.seq,)))
            case ev.RunStalled(failure=failure, seq=seq):
                text = f"the engine cannot go on with the run: {failure.code}: {failure.message}"
                self._say(Reason("stalled", "", text, (*((seq,) if seq else ()), said.seq)))
            case ev.CompensationStarted(path=path):
                self._say(Reason("undone", path, f"`{path}` had succeeded and is undone", (said.seq,)))

    def _input(self, kind: type, said: Said) -> tuple[int, ...]:
        """Where somebody asked for it: the newest such input before the decision."""
        found = [heard.seq for heard in self.chronicle.inputs if isinstance(heard.message, kind)]
        return tuple(seq for seq in found if seq < said.seq)[-1:]

    def _tell_failure(self, said: Said, failure: Failure, path: str, code: str) -> None:
        verb = "the run failed" if code == "failed" else "the run is about to fail; what it did is being undone"
        found = self._root_of(path, failure)
        place = f"`{path}` " if path else ""
        proof = () if found is None else reason_of_end(self.chronicle, self.plan, found).events
        text = f"{verb}: {place}{failure.code}: {failure.message}"
        self._say(Reason(code, path, text, (*proof, said.seq)))
        if found is not None and path_of(found.event) != path:
            self._say(reason_of_end(self.chronicle, self.plan, found))

    def _root_of(self, path: str, failure: Failure) -> Said | None:
        """The step that failed first with this failure, at the path or inside of it."""
        if not path:
            return None
        for said in self.chronicle.said:
            event = said.event
            if isinstance(event, ev.StepFailed) and event.failure.code == failure.code:
                if "?" in event.path and event.path.startswith(path):
                    return said
                if event.path == path or is_inside(event.path, path):
                    return said
        return None

    def _tell_key(self) -> None:
        created = next((said for said in self.chronicle.of_run if isinstance(said.event, ev.RunCreated)), None)
        if created is None or not getattr(created.event, "key", ""):
            return
        heard = any(isinstance(heard.message, ev.KeyAnswered) for heard in self.chronicle.inputs)
        if not heard and not self.ended:
            assert isinstance(created.event, ev.RunCreated)
            text = (
                f"the run waits for its turn: as many runs with key {created.event.key!r} are live as may be at a time"
            )
            self._say(Reason("concurrency", "", text, (created.seq,)))

    # --- steps -------------------------------------------------------------------------------------

    def tell_step(self, step: str) -> None:
        """Every instance that `step` means: what is alive first, then what ended badly, then the rest."""
        try:
            node = node_of(self.plan, step)
        except KeyError:
            known = ", ".join(sorted(node.path for node in self.plan.nodes)[:NESTED_MAX])
            message = f"no step {step[:100]!r} in pipeline `{self.plan.pipeline}`; it has {known}"
            raise NotFoundError(message) from None
        found = [step] if step in self.chronicle.of_path else self._instances(step)
        if not found:
            self._tell_unbegun(node, step, 0)
        for path in found:
            for reason in retries(self.chronicle, path):
                self._say(reason)
            end = self.chronicle.end(path)
            if end is None:
                self._tell_open(path)
            else:
                self._tell_end(end, 0)

    def _instances(self, step: str) -> list[str]:
        def rank(path: str) -> int:
            end = self.chronicle.end(path)
            return 0 if end is None else 1 if isinstance(end.event, ev.StepFailed) else 2

        return sorted(
            (path for path in self.chronicle.of_path if static_path(path) == step and "?" not in path), key=rank
        )

    def _tell_end(self, end: Said, depth: int) -> None:
        path = path_of(end.event)
        if isinstance(end.event, ev.StepFailed):
            found = self._root_of(path, end.event.failure)
            if found is not None and found is not end:
                self._say(reason_of_end(self.chronicle, self.plan, found))
        self._say(reason_of_end(self.chronicle, self.plan, end))
        if isinstance(end.event, ev.StepSkipped) and end.event.reason.startswith("it needs") and depth < NESTED_MAX:
            for other in self._needed(node_of(self.plan, path), path):
                cause = self.chronicle.end(other)
                if cause is not None and isinstance(cause.event, ev.StepSkipped):
                    self._tell_end(cause, depth + 1)

    def _needed(self, node: Node, path: str) -> list[str]:
        """Instances that an instance needs: beside it, and in the scopes around it."""
        scope = scope_of(path)
        beside = [scope + self.plan.nodes[index].id for index in node.needs]
        return beside + [self._outer(scope, self.plan.nodes[index].id) for index in node.outer]

    def _outer(self, scope: str, step: str) -> str:
        while scope:
            scope = scope_of(scope[:-1])
            if scope + step in self.chronicle.of_path:
                return scope + step
        return step

    def _tell_open(self, path: str) -> None:
        """What is under way inside; when there is nothing, what it waits for itself."""
        inside = [leaf for leaf in self.chronicle.open_leaves() if leaf == path or is_inside(leaf, path)]
        for leaf in inside or [path]:
            self._tell_leaf(leaf)

    def _tell_leaf(self, path: str, depth: int = 0) -> None:
        for reason in reason_of_waiting(self.chronicle, self.plan, path, now_ms=self.now_ms, served=self.served):
            self._say(reason)
        last = self.chronicle.last(path)
        if last is None or not isinstance(last.event, ev.FallbackStarted) or depth >= NESTED_MAX:
            return
        fallback = node_of(self.plan, path).fallback
        if fallback is not None and fallback.node is not None:
            standby = self.plan.nodes[fallback.node]
            other = scope_of(path) + standby.id
            if self.chronicle.last(other) is None:
                self._say(
                    Reason("ready", other, f"`{other}` is to stand in for `{path}` and has not begun", (last.seq,))
                )

    def _tell_unbegun(self, node: Node, path: str, depth: int) -> None:
        """It has no event: because of what is around it, beside it, or the run's own state."""
        around = scope_of(path)[:-1]
        last = self._newest()
        if self.ended:
            self._say(Reason("not_begun", path, f"`{path}` never began: the run ended first", (last[-1].seq,)))
            self.tell_run()
            return
        if around:
            self._say(Reason("not_begun", path, f"`{path}` has not begun in `{around}`", ()))
            if depth < NESTED_MAX and static_path(around) in self.plan.by_id:
                self.tell_step(around)
            return
        if node.standby_for is not None:
            owner = self.plan.nodes[node.standby_for]
            when = "is undone" if owner.compensate == node.index else "fails"
            self._say(Reason("standby", path, f"`{path}` runs only when `{owner.id}` {when}", ()))
            return
        waits = [other for other in self._needed(node, path) if self.chronicle.end(other) is None]
        if waits:
            self._tell_needs(path, waits, depth)
            return
        self._tell_ready(path)

    def _tell_needs(self, path: str, waits: list[str], depth: int) -> None:
        named = ", ".join(f"`{other}`" for other in waits[:NESTED_MAX])
        self._say(Reason("needs", path, f"`{path}` waits for {named}", ()))
        for other in waits:
            if self.chronicle.last(other) is not None:
                self._tell_open(other)
            elif depth < NESTED_MAX:
                self._tell_unbegun(node_of(self.plan, other), other, depth + 1)

    def _tell_ready(self, path: str) -> None:
        """All that it needs has ended: the run itself does not let it begin."""
        said = len(self.reasons)
        for event in reversed(self.chronicle.of_run):
            self._tell_of_run(event)
            if isinstance(event.event, STARTING):
                break
        self._tell_key()
        if len(self.reasons) > said:
            return
        busy = [leaf for leaf in self.chronicle.open_leaves() if isinstance(self._last(leaf), _ORDERED)]
        if len(busy) >= self.plan.max_parallel:
            text = f"`{path}` may begin; {len(busy)} steps are in flight, as many as `max_parallel` of the run allows"
            self._say(Reason("concurrency", path, text, tuple(self._seq(leaf) for leaf in busy[:NESTED_MAX])))
            return
        newest = self.chronicle.said[-1:]
        text = f"`{path}` may begin as soon as the scheduler decides and its queue has room"
        self._say(Reason("ready", path, text, tuple(said.seq for said in newest)))

    def _last(self, path: str) -> ev.DecisionEvent | None:
        last = self.chronicle.last(path)
        return None if last is None else last.event

    def _seq(self, path: str) -> int:
        last = self.chronicle.last(path)
        assert last is not None, path
        return last.seq


_ORDERED: Final = (ev.StepScheduled, ev.ChildStarted)


def _because(text: str, reason: str) -> str:
    return f"{text}: {reason}" if reason else text
