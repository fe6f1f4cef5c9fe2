"""What the language has and this release cannot execute yet: refused when a file is loaded, never ignored.

One table: `<record>.<key>` of a row of the schema, `<record>.<key>=<value>` of a choice, `name:<…>` of something in
expressions. Whoever teaches the engine a key deletes its entry here, and the key is accepted from then on.
"""

from collections.abc import Mapping
from typing import Final

_COST: Final = "prices and budgets"
_WAITING: Final = "steps that wait for somebody"
_MODELS: Final = "the layer of models: tool loops, schemas, sessions"

PENDING: Final[Mapping[str, str]] = {
    "name:children": _COST,
    "llm.approve": _WAITING,
    "llm.session": _MODELS,
    "llm.stream": _MODELS,
}
"""Entry → what it waits for. A key that only stands beside a pending one (`carry` beside `while`) needs no entry."""
