"""Steps that ask people, in the simulated world: some seeds start runs of them, and people who answer them.

What they must not break is said here, from the contracts alone.
"""

import functools
import random
from typing import TYPE_CHECKING, Any, Final

from headrace.contracts import codec, subjects
from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts.canonical import sha256_hex
from headrace.pipeline.definitions import Definition
from headrace.pipeline.plan import approval_hash
from headrace_scheduler.outcomes import question
from tests.simulation.workload import CALL, Asked, Pipeline, call

if TYPE_CHECKING:
    from tests.simulation.world import Record

SHARE: Final = 0.35
"""Of all seeds."""
POOL: Final = 16
PEOPLE: Final = ("ann", "bob", "eve")
"""The last is never asked."""
HASH: Final = approval_hash({"message": "Go on?"})


@functools.cache
def definitions() -> tuple[Pipeline, ...]:
    """Approvals beside calls, in maps, in loops, and in groups that are tried again."""
    return tuple(_definition(number) for number in range(POOL))


def _definition(number: int) -> Pipeline:
    draw = random.Random(f"answers/{number}")
    steps: dict[str, Any] = {"c0": call(ms=40)}
    paths: list[str] = []
    for place in range(draw.randrange(1, 4)):
        name = f"{draw.choice('qqu')}{place}"
        steps[name], found = _asking(draw, name) if name[0] == "q" else _unknown(name)
        if draw.random() < 0.6:
            steps[name]["needs"] = [draw.choice([other for other in steps if other != name])]
        paths += found
    steps["last"] = call(ms=300) | {"needs": [name for name in steps if name != "c0"]}
    document = {"pipeline": f"asks-{number}", "limits": {"deadline": "90s"}, "steps": steps}
    data = Definition(document).encoded()
    return Pipeline(document["pipeline"], data, sha256_hex(data), tuple(paths))


def _asking(draw: random.Random, name: str) -> tuple[dict[str, Any], list[str]]:
    """A step, and where in it a person is asked."""
    timeout, how = draw.choice(("500ms", "9s", "9s", "9s")), draw.choice(("fail", "skip", "skip"))
    ask = {"approval": {"message": "Go on?", "by": list(PEOPLE[:2]), "timeout": timeout, "on_timeout": how}}
    if draw.random() < 0.4:
        ask["fallback"] = {"value": {"by": "nobody"}}
    match draw.randrange(5):
        case 0:
            return ask | {"foreach": "${{ [1, 2] }}"}, [f"{name}[0]", f"{name}[1]"]
        case 1:
            bad = call(ms=draw.choice((40, 900))) | {"retry": {"attempts": 1}}
            bad["with"]["fail"] = 1
            group = {"steps": {"ok": ask, "bad": bad}, "retry": {"attempts": 2, "initial": "300ms"}}
            return group, [f"{name}/ok", f"{name}#2/ok"]
        case 2:
            loop = {"steps": {"ok": ask}, "until": "iteration >= 1", "max_iterations": 3}
            return loop, [f"{name}(0)/ok", f"{name}(1)/ok"]
    return ask, [name]


def _unknown(name: str) -> tuple[dict[str, Any], list[str]]:
    """A call that may happen once only: where nobody knows whether it did, a person is asked."""
    return call(ms=900) | {"effect": "at_most_once", "on_unknown": "ask"}, [name]


def chosen(seed: int) -> Pipeline | None:
    """The seed's pipeline, if it has one."""
    draw = random.Random(f"answers/seed/{seed}")
    return draw.choice(definitions()) if draw.random() < SHARE else None


def asked(seed: int) -> list[Asked]:
    """Runs, several people who answer each question, and now and then somebody who stops it all."""
    pipeline, draw = chosen(seed), random.Random(f"answers/asked/{seed}")
    if pipeline is None:
        return []
    commands = []
    for number in range(2):
        run, at_s = f"a{number}", draw.uniform(0.5, 4.0)
        commands.append(Asked(at_s, "run-start", run, f"{pipeline.name}@{pipeline.digest}"))
        for path in pipeline.steps:
            base_s = at_s + draw.uniform(0.2, 8.0)
            for nth in range(4 if path[0] == "q" else 12):
                answered_s = base_s + draw.choice((0.0, 0.0, draw.uniform(0.0, 6.0)))
                later_s = 0.0 if path[0] == "q" else draw.uniform(0.0, 40.0)
                commands.append(Asked(answered_s + later_s, "run-approve", run, inputs=((path, nth),)))
        fate = draw.random()
        if fate < 0.15:
            commands.append(Asked(at_s + draw.uniform(0.2, 6.0), "run-cancel", run))
        elif fate < 0.3:
            paused_s = at_s + draw.uniform(0.2, 3.0)
            commands.append(Asked(paused_s, "run-pause", run))
            commands.append(Asked(paused_s + draw.uniform(0.5, 8.0), "run-resume", run))
    return commands


def body(command: Asked) -> cmd.ApproveRun:
    """What one of them says: two approve, one rejects, and one is not asked or means something else."""
    ((path, nth),) = command.inputs
    if path[0] == "u":
        shown = approval_hash(question(path, 1 + nth // 3, CALL))
        said = ("retry", "complete", "fail")[nth % 3]
        return cmd.ApproveRun(runid=command.run, step=path, hash=shown, by="ann", decision=said, value=nth)  # type: ignore[arg-type]  # one of the words
    by, shown = (PEOPLE[nth], HASH) if nth < len(PEOPLE) else (PEOPLE[0], "0" * 64)
    decision = "reject" if nth == 1 else "approve"
    return cmd.ApproveRun(runid=command.run, step=path, hash=shown, by=by, decision=decision)  # type: ignore[arg-type]


def violations(record: "Record") -> list[str]:
    """Accepted is told to just those whose answer a decision took; nobody else decides anything."""
    if chosen(record.seed) is None:
        return []
    accepted = set()
    for stored in record.history[subjects.OUTCOMES]:
        outcome = codec.decode(stored.body)
        if isinstance(outcome, ev.CommandAccepted) and outcome.causationid.startswith("run-approve-"):
            accepted.add(outcome.causationid)
    given: dict[str, ev.ApprovalGiven] = {}
    taken: dict[str, str] = {}
    versions: dict[str, int] = {}
    found = []
    for stored in record.history["HR_RUNS_0"]:
        message = codec.decode(stored.body)
        if isinstance(message, ev.ApprovalGiven):
            given[message.id] = message
        if not isinstance(message, ev.RunDecided) or message.data.version != versions.get(message.runid, 0) + 1:
            continue
        versions[message.runid] = message.data.version
        for event in message.data.events:
            if not isinstance(event, ev.ApprovalGranted | ev.ApprovalDenied | ev.OutcomeSettled):
                continue
            answer = given.get(event.answer)
            if answer is None or answer.runid != message.runid or answer.data.step != event.path:
                found.append(f"run {message.runid}: {event.path} takes answer {event.answer}, which did not come")
                continue
            taken[answer.causationid] = event.path
            if event.path[0] == "q" and (answer.data.by not in PEOPLE[:2] or answer.data.hash != HASH):
                found.append(f"run {message.runid}: {event.path} takes the answer of {answer.data.by}")
    if accepted != set(taken):
        found.append(f"accepted answers {sorted(accepted)}; taken were {sorted(taken)}")
    return found
