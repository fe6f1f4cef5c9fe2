"""The envelope every stored message shares: CloudEvents 1.0, structured JSON, decoded in one step."""

import msgspec

from headrace.contracts.failure import Failure

SPECVERSION = "1.0"


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """A CloudEvent. Subclasses have an explicit tag `io.headrace.<entity>.<event>.v<N>` and a typed `data`.

    `id` is deterministic and is also the broker's message id. `time` (RFC 3339, µs, UTC) is for people: order is the
    stream sequence. Derived messages copy `time` and `source` of the decision they come from, so that deriving them
    again gives the same bytes.
    """

    specversion: str
    id: str
    source: str
    time: str
    schemaver: int
    tenant: str
    subject: str = ""
    pipeline: str = ""
    runid: str = ""
    stepid: str = ""
    """The step instance, e.g. `review[3]`; in the body only, never in a subject."""
    attempt: int = 0
    causationid: str = ""
    correlationid: str = ""
    traceparent: str = ""
    tracestate: str = ""
    defdigest: str = ""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of a long array: a blob that is an array of `count` elements, in `size` bytes."""

    ref: str
    size: int
    count: int


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A JSON value, inline or by reference; the two look the same to the author of a pipeline.

    Exactly one of `json`, `ref` and `parts` is set. `form` says how the bytes are read: `json` is the value itself;
    `items` is an array of `ItemResult`, the composed result of a `foreach`; `results` is such an array, read as
    how each item ended. With `index` ≥ 0 the value is that element
    of the array behind `ref`: one item of a long list.
    """

    json: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ref: str = ""
    size: int = 0
    form: str = "json"
    index: int = -1
    count: int = -1
    """How many elements a list behind `ref` has; −1 when it is no list or nobody counted."""
    parts: tuple[Part, ...] = ()
    """An array in pieces, in order: the results of a `foreach` over more than ITEMS_PART_MAX items. `size` is the sum
    of theirs, and may be more than one value may have."""


class ItemResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of a finished `foreach`: `status` is `succeeded`, `failed`, `skipped` or `cancelled`."""

    status: str
    value: Value | None = None
    failure: Failure | None = None
