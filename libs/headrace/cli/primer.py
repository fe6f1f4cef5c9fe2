"""What a model is told about the language before it drafts a pipeline: made from the language itself."""

import json
from typing import Final

from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace.pipeline.cel_library import described_functions
from headrace.pipeline.pending import PENDING
from headrace.pipeline.published_schema import json_schema

RULES: Final = """You write pipelines for Headrace, a durable engine for AI pipelines. One YAML file is one pipeline.
Answer with the whole file in one fenced block (```yaml), after at most three sentences on what it does.

- `steps` is a map from id to step; a step has exactly one kind (llm, tool, transform, pipeline, steps, switch, wait,
  signal, …). The order in the file means nothing: reading `steps.<id>.output` makes the reader wait for that step.
- `${{ … }}` holds CEL. A value that is exactly one expression keeps its type; inside longer text it becomes text.
  `when`, `while`, `until` and `foreach` are bare expressions. Quote a flow value that has braces: "${{ item }}".
- In scope: inputs.<name>, vars.<name>, steps.<id>.output|status|error, item and index in a `foreach`, carry and
  iteration in a loop, run.id. Integers and doubles do not mix: write double(x).
- The output of an `llm` step is {text}. That of a `foreach` is {items, failed, counts}, of a transform what it says,
  of a tool what the tool gives, of a group what its `outputs` say.
- Every loop has max_iterations. Declare what the user gives as `inputs` and what they want as `outputs`.
- Use a model only where a model is needed. Never write a key or password. Only the keys of the schema exist.
"""
EXAMPLE: Final = r"""pipeline: summarise-notes
description: Summarise every note of a folder and put the summaries into one file.
inputs:
  dir:   {type: string, default: notes}
  model: {type: string, default: echo/echo, description: "provider/model"}
workspace: true
steps:
  list:
    tool: fs.glob
    with: {dir: "${{ inputs.dir }}", pattern: "**/*.md", limit: 100}
  summary:
    foreach: steps.list.output.paths
    as: path
    max_parallel: 4
    on_item_error: continue
    llm:
      model: ${{ inputs.model }}
      max_tokens: 300
      prompt: |
        Summarise in three sentences:

        ${{ file(path) }}
  good:
    transform: ${{ steps.summary.output.items.filter(s, s != null).map(s, s.text) }}
  save:
    when: size(steps.good.output) > 0
    tool: fs.write
    with:
      path: summaries.md
      text: ${{ steps.good.output.join("\n\n") }}
    artifacts: [summaries.md]
outputs:
  count: ${{ size(steps.good.output) }}
  failed: ${{ size(steps.summary.output.failed) }}
"""


def primer() -> str:
    """Rules, an example, functions, tools and the JSON Schema; about 50 KB. What this release refuses is named last."""
    functions = "\n".join(f"- {call} -> {gives}: {told}" for call, gives, told in described_functions())
    tools = "\n".join(
        f"- {spec.tool}: {spec.description} With: {', '.join(spec.args['properties'])}. Gives: "
        f"{', '.join(spec.result.get('properties', ())) or 'any value'}."
        for spec in BUILTIN_TOOLS.values()
    )
    refused = ", ".join(PENDING)
    schema = json.dumps(json_schema(), separators=(",", ":"))
    return (
        f"{RULES}\nAn example:\n```yaml\n{EXAMPLE}```\n\nFunctions beyond CEL's own:\n{functions}\n\n"
        f"Built-in tools:\n{tools}\n\nJSON Schema of the file:\n{schema}\n\n"
        f"Not executed by this release, so do not use: {refused}.\n"
    )
