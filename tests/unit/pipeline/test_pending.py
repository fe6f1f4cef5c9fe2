"""What the language has and the engine has not: refused by name, until its entry is deleted."""

import pytest

from headrace.pipeline.bundle import load_text
from headrace.pipeline.pending import PENDING
from headrace.pipeline.problems import RefusedDefinitionError
from headrace.pipeline.schema import SCHEMA

HEAD = "pipeline: p\nsteps: "
READ = "tool: fs.read, with: {path: a}"
UNTIL = "until: 'true', max_iterations: 3"
USES = {
    "step.steps": HEAD + "{s: {steps: {x: {wait: {for: 1s}}}}}",
    "step.switch": HEAD + "{s: {switch: [{default: {steps: {x: {wait: {for: 1s}}}}}]}}",
    "step.while": HEAD + "{s: {wait: {for: 1s}, while: 'true', max_iterations: 3}}",
    "step.until": HEAD + f"{{s: {{wait: {{for: 1s}}, {UNTIL}}}}}",
    "step.signal": HEAD + "{s: {signal: {name: go}}}",
    "step.approval": HEAD + "{s: {approval: {message: x}}}",
    "step.emit": HEAD + "{s: {emit: {name: done}}}",
    "step.fallback": HEAD + f"{{s: {{{READ}, fallback: {{value: 1}}}}}}",
    "step.compensate": HEAD + f"{{s: {{{READ}, compensate: t}}, t: {{{READ}}}}}",
    "step.on_unknown=ask": HEAD + f"{{s: {{{READ}, on_unknown: ask}}}}",
    "step.cache": HEAD + "{s: {tool: x, cache: {key: a, ttl: 1h}}}",
    "step.queue": HEAD + f"{{s: {{{READ}, queue: gpu}}}}",
    "step.version": HEAD + f"{{s: {{{READ}, version: 1.0.0}}}}",
    "step.budget": HEAD + "{s: {llm: {prompt: x}, budget: {usd: 1}}}",
    "limits.budget": f"limits: {{budget: {{usd: 1}}}}\n{HEAD}{{s: {{wait: {{for: 1s}}}}}}",
    "name:children": f"limits: {{budget: {{usd: 1, on_exceed: fail}}}}\n{HEAD}{{s: {{pipeline: other}}}}",
    "limits.concurrency": f"limits: {{concurrency: {{key: a}}}}\n{HEAD}{{s: {{wait: {{for: 1s}}}}}}",
    "trigger.cron": f"triggers: [{{cron: 0 6 * * *}}]\n{HEAD}{{s: {{wait: {{for: 1s}}}}}}",
    "pipeline.retain": f"workspace: true\nretain: 1d\n{HEAD}{{s: {{wait: {{for: 1s}}}}}}",
    "llm.approve": HEAD + "{s: {llm: {prompt: x, tools: [fs.read], approve: [write]}}}",
    "llm.session": HEAD + "{s: {llm: {prompt: x, session: {id: a}}}}",
    "llm.stream": HEAD + "{s: {llm: {prompt: x, stream: false}}}",
    "llm.allow_unpriced": HEAD + "{s: {llm: {prompt: x, allow_unpriced: true}}}",
    "name:secrets": HEAD + "{s: {tool: x, with: {a: '${{ secrets.KEY }}'}}}",
    "name:now": HEAD + "{s: {transform: '${{ now() }}'}}",
    "name:event": HEAD + "{s: {transform: '${{ event.data }}'}}",
    "name:run.attempt": HEAD + "{s: {transform: '${{ run.attempt }}'}}",
    "name:items": HEAD + f"{{s: {{transform: '${{{{ steps.t.items }}}}'}}, t: {{foreach: [1], {READ}}}}}",
}
"""A file that uses nothing pending but this."""


@pytest.mark.parametrize("entry", list(USES))
def test_otp_n13_what_is_not_executed_yet_is_refused_and_nothing_else_of_it(entry: str) -> None:
    """With its code; and without its entry the file is sound, which is how an entry is retired."""
    without = {other: reason for other, reason in PENDING.items() if other != entry}
    assert load_text(USES[entry], pending=without).plan.pipeline == "p"
    if entry not in PENDING:
        return
    with pytest.raises(RefusedDefinitionError) as caught:
        load_text(USES[entry])
    (problem,) = caught.value.found
    assert problem.code == "E1401"
    assert problem.hint == f"it waits for: {PENDING[entry]}"


def test_every_entry_names_something_of_the_language() -> None:
    """An entry for a key that is gone would refuse nothing, and one without a use here would be untested."""
    keys = {f"{row.where}.{row.key}" for row in SCHEMA}
    assert set(PENDING) <= set(USES)
    for entry in PENDING:
        assert entry.startswith("name:") or entry.partition("=")[0] in keys, entry
