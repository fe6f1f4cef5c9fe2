"""What an expression may name at its place: steps, the loops around, and which of the other roots."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from headrace.pipeline.cel_library import LOOP_NAMES, ROOTS
from headrace.pipeline.plan import loop_name

OPEN_ROOTS: Final = frozenset(ROOTS) - {*LOOP_NAMES, "secrets"}
"""Roots that are in scope everywhere inside of steps; loops are as they come, secrets where they are handed over."""

_WITH_SECRETS: Final = OPEN_ROOTS | {"secrets"}


@dataclass(slots=True, frozen=True)
class Visible:
    """A step that may be read. `fields`: the keys of its output, None where only the value tells."""

    fields: frozenset[str] | None = None
    is_map: bool = False
    """It runs once for each item of a list."""
    standby: str = ""
    """Set for a step that runs only in place of another or to undo it: why it cannot be read."""


@dataclass(slots=True, frozen=True)
class Scope:
    """Names at one place of the file."""

    steps: Mapping[str, Visible] = field(default_factory=dict)
    around: tuple[str, ...] = ()
    """Steps that this place is inside of, outermost first: none of them can have run."""
    own: str = ""
    """The step whose part this is."""
    loops: Mapping[str, str] = field(default_factory=dict)
    """What loops around call their names → what they are called compiled."""
    foreach_depth: int = 0
    while_depth: int = 0
    roots: frozenset[str] = OPEN_ROOTS

    def in_foreach(self, alias: str) -> "Scope":
        """Inside of one more `foreach`."""
        depth = self.foreach_depth
        loops = {**self.loops, alias: loop_name("item", depth), "index": loop_name("index", depth)}
        return replace(self, loops=loops, foreach_depth=depth + 1)

    def in_while(self) -> "Scope":
        """Inside of one more `while` or `until`."""
        loops = {**self.loops, **{name: loop_name(name, self.while_depth) for name in ("carry", "iteration")}}
        return replace(self, loops=loops, while_depth=self.while_depth + 1)

    def part_of(self, step: str) -> "Scope":
        """As the parts of a step see it."""
        return Scope(
            self.steps, self.around, step, self.loops, self.foreach_depth, self.while_depth, self.roots
        )  # one a step of the file: `replace` takes ten times as long

    def inside(self, step: str, steps: Mapping[str, Visible]) -> "Scope":
        """As the steps of a block of `step` see it; `step` is empty for the pipeline's own block."""
        around = (*self.around, step) if step else self.around
        return replace(self, steps={**self.steps, **steps}, around=around, own="")

    def with_secrets(self) -> "Scope":
        """Where secrets are handed over."""
        roots = _WITH_SECRETS if self.roots is OPEN_ROOTS else self.roots | {"secrets"}
        return Scope(self.steps, self.around, self.own, self.loops, self.foreach_depth, self.while_depth, roots)

    def only(self, *roots: str) -> "Scope":
        """Nothing but these roots."""
        return Scope(roots=frozenset(roots))
