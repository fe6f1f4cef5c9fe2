"""What checking gives: steps and blocks whose parts compile, and what depends on what. `compile` makes a plan of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.contracts.events import ToolSpec
from headrace.pipeline.expressions import Expression, Template
from headrace.pipeline.positions import Path
from headrace.pipeline.scopes import Scope


@dataclass(slots=True)
class CheckedStep:
    """A step whose parts compile. It waits for the steps in `after`, of which those in `optional` may be skipped."""

    id: str
    kind: str
    body: Mapping[str, Any]
    at: Path
    """Where it stands in the document."""
    path: str
    """Its static path, see `plan`."""
    scope: Scope
    """Of its parts; inside of its own loop where it has one."""
    spec: Template
    when: Expression | None = None
    items: Expression | None = None
    condition: Expression | None = None
    """Of `while` or `until`."""
    start: Template | None = None
    """`carry`."""
    fallback_value: Template | None = None
    cache_key: Template | None = None
    tool: ToolSpec | None = None
    tools: tuple[ToolSpec, ...] = ()
    """That a model may call, as far as they are known here."""
    blocks: list["CheckedBlock"] = field(default_factory=list)
    after: dict[str, None] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)
    outer: dict[str, None] = field(default_factory=dict)
    """Steps of the blocks around that it needs."""
    standby_for: str = ""

    def parts(self) -> list[Expression | Template]:
        """Everything of its own that is evaluated."""
        found = (self.when, self.items, self.condition, self.start, self.spec, self.fallback_value, self.cache_key)
        return [part for part in found if part is not None]


@dataclass(slots=True)
class CheckedBlock:
    """A `steps:` map, its steps by id."""

    at: Path
    steps: list[CheckedStep]
    outputs: dict[str, Template]
    scope: Scope
    """As its steps and outputs see it."""
    when: Expression | None = None


@dataclass(slots=True)
class Checked:
    """A document, compiled."""

    root: CheckedBlock
    triggers: list[str]
    """The condition of each trigger as a bare expression, empty where there is none."""
    concurrency_key: Template | None = None
