"""Which names are known where: every refusal at its place in the file, through scopes of any depth."""

import pytest

from headrace.pipeline.bundle import load_text
from headrace.pipeline.problems import RefusedDefinitionError

HEAD = "pipeline: p\nsteps:\n"
SECRETS = "secrets are handed over in `with` and in a provider's `options` only"


def refused(text: str) -> list[str]:
    with pytest.raises(RefusedDefinitionError) as caught:
        load_text(text, file="p", pending={})
    return [str(problem).removeprefix("p:") for problem in caught.value.found]


BAD = [
    (
        HEAD + "  g: {steps: {a: {tool: x, with: {x: '${{ steps.g.output }}'}}}}\n",
        ["3:49: E1215 step `g` cannot have run: this is a part of it"],
    ),
    (
        HEAD + "  g: {steps: {a: {tool: x, needs: g}}}\n",
        ["3:35: E1215 step `g` cannot have run: this is a part of it"],
    ),
    (
        HEAD + "  g: {steps: {a: {tool: x}}}\n  b: {tool: x, needs: a}\n  c: {transform: '${{ steps.a.output }}'}\n",
        [
            "4:23: E1201 no step `a` here; it is inside of `g`; need that",
            "5:29: E1201 no step `a` here; it is inside of `g`; give that an output",
        ],
    ),
    (
        HEAD + "  g: {steps: {a: {tool: x}}, outputs: {o: '${{ steps.b.output + steps.a.status }}'}}\n"
        "  h: {transform: '${{ steps.g.output.p }}'}\n  i: {wait: {for: 1s}}\n"
        "  j: {transform: '${{ steps.i.output.x + steps.i.?output.?x.orValue(1) }}'}\n",
        [
            "3:54: E1201 no step `b`; known are g, h, i, j, a",
            "4:38: E1214 step `g` has no output `p`; known are o",
            "6:38: E1214 step `i` has no output `x`; it gives null",
        ],
    ),
    (
        HEAD + "  a: {steps: {b: {steps: {a: {tool: x}}}}}\n",
        ["3:27: E1213 the id `a` is taken by a step outside; a step inside may not hide one that it can read"],
    ),
    (
        HEAD + "  a: {foreach: carry, tool: x}\n  b: {while: item == 1, max_iterations: 2, tool: x}\n"
        "  c: {when: iteration == 1, until: carry == 1, max_iterations: 2, tool: x}\n",
        [
            "3:16: E1206 `carry` is known only in a step with `while` or `until`",
            "4:14: E1206 `item` is known only in a step with `foreach`",
            "5:13: E1206 `iteration` is known only in a step with `while` or `until`",
        ],
    ),
    (
        HEAD + "  a: {foreach: '[1]', as: x, steps: {b: {foreach: '[2]', as: y, tool: x, "
        "with: {a: '${{ item }}', b: '${{ item_1 }}', c: '${{ x + y + z }}'}}}}\n",
        [
            "3:89: E1301 `item` is not known here; it is called `x`",
            "3:107: E1301 `item_1` is not known here; known are inputs, vars, steps, item, index, carry, iteration, "
            "run, event, secrets",
            "3:135: E1301 unknown name `z`; known are inputs, vars, steps, item, index, carry, iteration, run, "
            "event, secrets",
        ],
    ),
    (
        HEAD + "  a: {foreach: '[1]', as: inputs, tool: x}\n",
        ["3:27: E1107 `inputs` is reserved; it is a name in every expression"],
    ),
    (
        HEAD + "  a: {llm: {prompt: '${{ secrets.A }}', options: {key: '${{ secrets.B }}'}}}\n"
        "  b: {when: secrets.C == 'x', tool: x}\n  c: {tool: x, with: {k: '${{ secrets }}'}}\n",
        [
            f"3:21: E1305 a secret cannot be read here; {SECRETS}",
            f"4:13: E1305 a secret cannot be read here; {SECRETS}",
            "5:31: E1305 `secrets` alone is no value; name one: `secrets.<NAME>`",
        ],
    ),
    (
        "pipeline: p\nlimits: {concurrency: {key: '${{ steps.a.output }}${{ item }}'}}\nsteps: {a: {tool: x}}\n",
        [
            "2:34: E1206 `steps` is not in scope here; in scope are event, inputs, vars",
            "2:55: E1206 `item` is not in scope here; in scope are event, inputs, vars",
        ],
    ),
    (
        "pipeline: p\ntriggers: [{event: e, when: event.dat.x == 1, inputs: {n: '${{ event.body }}'}}]\n"
        "inputs: {n: {}}\nsteps: {a: {transform: '${{ event.data.x + event.nr }}'}}\n",
        [
            "2:35: E1205 an event has no `dat`; did you mean `data`?",
            "2:70: E1205 an event has no `body`; known are id, type, source, time, subject, data, due",
            "4:50: E1205 an event has no `nr`; known are id, type, source, time, subject, data, due",
        ],
    ),
    (
        HEAD + "  a: {transform: '${{ run.attemt }}'}\n  b: {switch: [{when: 1 + 1, steps: {c: {tool: x}}}]}\n",
        [
            "3:27: E1205 a run has no `attemt`; did you mean `attempt`?",
            "4:23: E1304 a condition is true or false, this gives int; compare it with something",
        ],
    ),
    (
        HEAD + "  a: {transform: {from: '1 + 1', where: 'item', select: '${{ indx }}', "
        "join: {with: 'x ${{ 1 }}', on: k}}}\n",
        [
            "3:62: E1301 unknown name `indx`; did you mean `index`?",
            "3:86: E1301 one expression is expected, this is text with expressions; write it as one",
        ],
    ),
    (
        HEAD + "  a: {transform: {from: '1 + 1', where: '1 + 1'}}\n",
        [
            "3:25: E1304 `from` takes a list, this gives int; for a map, take its `keys()`",
            "3:41: E1304 a condition is true or false, this gives int; compare it with something",
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), BAD, ids=range(len(BAD)))
def test_otp_n18_a_name_that_means_nothing_here_is_refused(text: str, expected: list[str]) -> None:
    """Inside of groups, cases and loops too, with the place inside of the scalar."""
    assert refused(text) == expected
