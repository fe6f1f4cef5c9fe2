"""A plan as a Mermaid flowchart."""

from headrace.pipeline.bundle import load_text
from headrace.pipeline.mermaid import mermaid

TEXT = """
pipeline: p
inputs: {mode: {type: string}}
steps:
  a: {tool: fs.glob, with: {pattern: "*"}, when: inputs.mode != "<x>"}
  b: {foreach: steps.a.output.paths, as: path, llm: {prompt: "${{ path }}"}, compensate: u, fallback: f}
  c:
    switch:
      - {when: inputs.mode == "fast", steps: {x: {wait: {for: 1m}}}}
      - default: {steps: {x: {approval: {message: ok}}, y: {emit: {name: done}, needs: x}}}
  d: {steps: {x: {pipeline: other}}, needs: c, until: carry == 1, max_iterations: 2}
  e: {transform: "${{ steps.?b.?output.orValue(1) }}", needs: d}
  f: {signal: {name: go}}
  u: {tool: x}
"""
DRAWN = """flowchart TD
  n0["a<br/>tool fs.glob<br/>when inputs.mode != #quot;#lt;x#gt;#quot;"]
  n1(["b<br/>llm echo/echo<br/>for each of steps.a.output.paths"])
  subgraph n2["c<br/>switch"]
    subgraph n2c0["inputs.mode == #quot;fast#quot;"]
      n7(("x<br/>wait for 1m"))
    end
    subgraph n2c1["default"]
      n8{{"x<br/>approval"}}
      n9[\\"y<br/>emit done"/]
    end
  end
  subgraph n3["d<br/>group<br/>until carry == 1"]
    n10[["x<br/>pipeline other"]]
  end
  n4[/"e<br/>transform"/]
  n5>"f<br/>signal go"]
  n6["u<br/>tool x"]
  n0 --> n1
  n1 ==>|fallback| n5
  n1 ==>|undone by| n6
  n2 --> n3
  n1 -.-> n4
  n3 --> n4
  n8 --> n9
"""


def test_every_kind_has_its_shape_and_groups_hold_their_steps() -> None:
    """Labels say what, how often and when; nothing of an author ends a label or a tag."""
    assert mermaid(load_text(TEXT, pending={}).plan) == DRAWN
