"""What is said on core NATS and never stored: presence, revocations, requests and replies."""

import msgspec

from headrace.contracts.events import ToolSpec
from headrace.contracts.failure import Failure


class Held(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """An order in an executor's hands: run, step instance, attempt, offer."""

    run: str
    path: str
    attempt: int
    offer: int


class Beat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sign of life. Executors also say what they hold.

    `boot` changes with every process start, `counter` rises by 1 a beat, so a listener knows when it missed one.
    """

    service: str
    instance: str
    boot: str
    counter: int
    ready: bool = False
    version: str = ""
    lag: int = 0
    taken: tuple[Held, ...] = ()
    finished: tuple[Held, ...] = ()
    full: tuple[Held, ...] | None = None
    """Everything in hand; on every tenth beat and on request."""
    queues: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    """`<tenant>/<name>` of secrets that an executor has."""
    partitions: tuple[int, ...] = ()
    leaving: bool = False
    """The last beat of a process that stops: its orders are handed back, there is nothing to suspect."""


class Revoke(msgspec.Struct, frozen=True, kw_only=True):
    """These attempts are over for the engine."""

    held: tuple[Held, ...]


class CurrentAsk(msgspec.Struct, frozen=True, kw_only=True):
    """Are these orders still current? One batch for one partition."""

    orders: tuple[tuple[str, str, int, int, str], ...]
    """(run, step instance, attempt, offer, decision id)."""


class CurrentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One truth value for each order asked about."""

    current: tuple[bool, ...]


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request to a service or a tool: `id` makes a retry the same request.

    A tool's call has the id `<run>/<step instance>/<attempt>`; what stands before the last `/` is the same for all
    attempts.
    """

    id: str
    tenant: str
    data: msgspec.Raw
    timeout_ms: int = 0
    """How long the caller waits; 0 where the service has a bound of its own."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reply: `data`, or `error`."""

    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Failure | None = None


class ToolQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Look up one tool; without a version the newest that is enabled."""

    tool: str
    version: str = ""


class ToolList(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All enabled tools, by name and version, and the order-free hash of the catalogue."""

    tools: tuple[ToolSpec, ...]
    hash: str
    waiting: tuple[ToolSpec, ...] = ()
    """Changed tools that nobody has approved yet."""


class OpenSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Open a conversation; opening it again is the same."""

    session: str
    labels: dict[str, str] = {}


class AppendTurn(msgspec.Struct, frozen=True, kw_only=True):
    """Append a turn; `expected` is the version the caller saw last."""

    session: str
    expected: int
    role: str
    content: msgspec.Raw


class ReadSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Read turns `after` a version, at most `limit`."""

    session: str
    after: int = 0
    limit: int = 1000


class CloseSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Close a conversation; closing it again is the same."""

    session: str
    reason: str = ""


class SessionTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation."""

    version: int
    role: str
    content: msgspec.Raw


class SessionView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation as it stands. `version` is the number of turns."""

    session: str
    version: int
    closed: bool = False
    turns: tuple[SessionTurn, ...] = ()


class RunRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run in the monitor's list.

    `status`: running, paused, blocked, stalled, cancelling, completed, failed, cancelled.
    """

    run: str
    tenant: str
    pipeline: str
    status: str
    created_ms: int
    updated_ms: int
    steps: dict[str, int] = {}
    """Step instances by status."""
    parent: str = ""
    labels: dict[str, str] = {}
    failure: Failure | None = None
    defdigest: str = ""
    inputs_sha: str = ""
    durability: str = ""


class ListRuns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Newest first."""

    pipeline: str = ""
    status: str = ""
    limit: int = 50


class RunList(msgspec.Struct, frozen=True, kw_only=True):
    """Runs, newest first, and how far the projection has read: stream → sequence."""

    runs: tuple[RunRow, ...]
    position: dict[str, int]


class StateHash(msgspec.Struct, frozen=True, kw_only=True):
    """Hash over a projection's canonical state, and how far it has read: stream → sequence."""

    hash: str
    position: dict[str, int]


class ServiceRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process as the monitor last heard of it. `silent_ms` since its last beat."""

    service: str
    instance: str
    ready: bool
    silent_ms: int
    version: str = ""
    lag: int = 0
    held: int = 0
    partitions: tuple[int, ...] = ()
    queues: tuple[str, ...] = ()


class ServiceList(msgspec.Struct, frozen=True, kw_only=True):
    """Every process heard of in the last ten minutes."""

    services: tuple[ServiceRow, ...]


class Empty(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing to say."""
