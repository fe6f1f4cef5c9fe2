"""`cache`: a step whose key has a result from earlier takes it instead of being executed. Pure.

A key is one of a step of a pipeline of a tenant: the digest covers the step's static path, so that all items and
iterations share their results, and runs of other versions of the pipeline too. A hit is a fact of the decision, with
where it comes from; looking for one leaves no trace in the log.
"""

from typing import Final

from headrace.contracts import events as ev
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode_value
from headrace.contracts.decisions import Origin
from headrace.contracts.envelope import Value
from headrace.contracts.errors import ExpressionError
from headrace.pipeline.expressions import render
from headrace.pipeline.plan import Cache, Node
from headrace_scheduler.asking import ask
from headrace_scheduler.draft import Writer
from headrace_scheduler.orders import evaluable_here
from headrace_scheduler.paths import evaluation, part_of
from headrace_scheduler.reuse import Found, sha_of
from headrace_scheduler.values import bind, materialise

LOOK_AHEAD: Final = 64
"""Items of a map that are looked for together: one look takes as long as sixty."""


def digest_to_try(writer: Writer, node: Node, path: str) -> str | None:
    """The digest of the key under which the first attempt is to be made, because there is no result under it; None when
    there is no attempt yet: the step was completed with an earlier result, or it is not known whether there is one.

    Raises:
        ExpressionError: the key has no value.
    """
    assert node.cache is not None, path
    if not writer.room():
        return None
    answer = ask(writer, evaluation(path, "cache"), node.cache.key)
    if answer is None:
        return None
    digest = _digest(writer, node, answer.at_hand(path, "the key of its cache"))
    reuse = writer.reuse
    if digest in writer.kept:
        found: Found | None = writer.kept[digest]
    elif digest in reuse.found:
        found = reuse.found[digest]
    else:
        reuse.wanted[digest] = None
        _look_ahead(writer, node, path)
        return None
    if found is None or writer.now_ms >= found.origin.at_ms + node.cache.ttl_ms:
        return digest
    writer.emit(ev.StepCompleted(path=path, output=found.value, cached=found.origin))
    return None


def keep(writer: Writer, digest: str, path: str, report: str, value: Value) -> None:
    """A result that later steps of this run and others may use."""
    origin = Origin(run=writer.run.run, path=path, report=report, at_ms=writer.now_ms, sha256=sha_of(value))
    writer.kept[digest] = Found(value, origin)


def _digest(writer: Writer, node: Node, key: object) -> str:
    return sha256_hex(encode_value([writer.run.tenant, writer.run.pipeline, node.path, key]))


def _look_ahead(writer: Writer, node: Node, path: str) -> None:
    """The keys of the items that come next, as far as they can be evaluated here."""
    owner, index = part_of(path) or ("", 0)
    whole = writer.run.get(owner) if path[-1] == "]" else None
    if whole is None or whole.fan is None:
        return
    assert node.cache is not None
    for number in range(index + 1, min(index + LOOK_AHEAD, whole.fan.count)):
        digest = _digest_ahead(writer, node, node.cache, f"{owner}[{number}]")
        if digest is None:
            return
        if digest not in writer.reuse.found:
            writer.reuse.wanted[digest] = None


def _digest_ahead(writer: Writer, node: Node, cache: Cache, path: str) -> str | None:
    reads, optional = cache.key.reads, cache.key.optional
    try:
        bindings = bind(writer.run, writer.plan, evaluation(path, "cache"), reads, optional, now_ms=writer.now_ms)
        if not evaluable_here(bindings, cache.key):
            return None
        return _digest(writer, node, render(cache.key, materialise(bindings)))
    except ExpressionError:
        return None  # its own turn says what is wrong with it
