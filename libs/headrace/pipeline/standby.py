"""Steps that run only in place of another one (`fallback`) or to undo it (`compensate`), and what they may read.

Such a step has no place of its own in the graph. What it reads must have ended when it is called for: a fallback may
read whatever its owner could wait for, and its owner then does; a compensation may read its owner, and what its owner
waits for, directly or not.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from headrace.pipeline.checked import CheckedStep
from headrace.pipeline.positions import Path
from headrace.pipeline.problems import shown
from headrace.pipeline.validate import Report, near

ROLES: Final = ("fallback", "compensate")
_FOR: Final = {"fallback": "it only stands in for", "compensate": "it only undoes"}


class Standbys:
    """The steps of one block that stand in for others of it."""

    def __init__(self, sound: Mapping[str, Any], steps: Mapping[str, Any], at: Path, report: Report) -> None:
        self.report, self.at = report, at
        self.roles: dict[str, tuple[str, str]] = {}
        """Step → its role and its owner."""
        for owner, body in sorted(sound.items()):
            for role in ROLES:
                target = body.get(role)
                if isinstance(target, str):
                    self._add(owner, role, target, sound, steps)
        self._refuse_rings()

    def _add(self, owner: str, role: str, target: str, sound: Mapping[str, Any], steps: Mapping[str, Any]) -> None:
        path = (*self.at, owner, role)
        if target == owner:
            self.report.value(path, "E1202", f"step `{owner}` names itself")
        elif target not in steps:
            text = f"no step `{shown(target)[1:-1]}` beside this one"
            self.report.value(path, "E1201", text, near(target, [name for name in steps if name != owner]))
        elif target in self.roles:
            other_role, other = self.roles[target]
            text = f"`{target}` is the {_noun(other_role)} of `{other}` already"
            self.report.value(path, "E1212", text, "write a step for each")
        else:
            self.roles[target] = (role, owner)
            self._check_body(target, role, owner, sound.get(target, {}))

    def _check_body(self, target: str, role: str, owner: str, body: Mapping[str, Any]) -> None:
        for key in ("needs", "compensate") if role == "fallback" else ("needs", *ROLES):
            if key in body:
                text = f"`{target}` is the {_noun(role)} of `{owner}`, so `{key}` has no meaning here"
                self.report.key((*self.at, target, key), "E1212", text, "it runs when that step calls for it")

    def _refuse_rings(self) -> None:
        """Steps that stand in for each other would never run."""
        for start in sorted(self.roles):
            trail = [start]
            while trail[-1] in self.roles:
                owner = self.roles[trail[-1]][1]
                if owner in trail:
                    if owner == start:
                        text = f"the steps stand in for each other: {' → '.join([*trail, start])}"
                        self.report.key((*self.at, start), "E1203", text)
                    for name in trail:
                        self.roles.pop(name, None)
                    break
                trail.append(owner)

    def reason(self, step: str) -> str:
        """Why a step cannot be read by others; empty when it can."""
        if step not in self.roles:
            return ""
        role, owner = self.roles[step]
        also = f"; read `steps.{owner}`" if role == "fallback" else ""
        return f"{_FOR[role]} `{owner}`{also}"

    def owner_of(self, step: str) -> str:
        """The step that a step stands in for; empty for one of the graph itself."""
        return self.roles[step][1] if step in self.roles else ""

    def connect(self, steps: Sequence[CheckedStep]) -> None:
        """Take these steps out of the graph: their owners wait for what they read."""
        by_id = {step.id: step for step in steps}
        for step in steps:
            if not step.standby_for:
                continue
            root, role = self._root(step.id)
            owner = by_id.get(root)
            if owner is None:
                continue  # it is broken, and that has been said
            for name in [name for name in step.after if name != step.standby_for and name != root]:
                if role == "fallback":
                    if name not in owner.after:
                        owner.after[name] = None
                        owner.optional.add(name)
                elif name not in _before(owner, by_id):
                    text = f"step `{name}` cannot have run when `{step.id}` undoes `{owner.id}`"
                    self.report.key((*self.at, step.id), "E1215", text, f"let `{owner.id}` need it")
            step.after.clear()
            step.optional.clear()

    def _root(self, step: str) -> tuple[str, str]:
        """The step of the graph that calls for this one in the end, and the nearest role on the way."""
        role = self.roles[step][0]
        while step in self.roles:
            step = self.roles[step][1]
        return step, role


def _noun(role: str) -> str:
    return "fallback" if role == "fallback" else "compensation"


def _before(step: CheckedStep, by_id: Mapping[str, CheckedStep]) -> set[str]:
    """Everything that a step waits for, directly or not."""
    found: set[str] = set()
    pending = [*step.after]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += by_id[name].after if name in by_id else ()
    return found
