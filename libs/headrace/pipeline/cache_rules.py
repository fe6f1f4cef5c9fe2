"""Which steps may use a result of another run: those that only their key and their spec decide."""

from headrace.pipeline.checked import CheckedStep
from headrace.pipeline.validate import Report


def check_cache(step: CheckedStep, report: Report) -> None:
    """Report `cache` on a step whose result is of its own run or credential alone, or whose effect is wanted."""
    if step.cache_key is None:
        return
    at, body = (*step.at, "cache"), step.body
    references = (reference for found in step.spec.found for reference in found.expression.references)
    if any(reference.root == "secrets" for reference in references):
        hint = "what one credential opened is not for everybody who has the same key"
        report.key(at, "E1114", "`cache` does not go with secrets", hint)
    effect = body.get("effect", "" if step.tool is None else step.tool.effect)
    if effect == "at_most_once":
        report.key(at, "E1114", "`cache` does not go with `effect: at_most_once`", "a hit would leave the effect out")
    if "artifacts" in body:
        report.key(at, "E1114", "`cache` and `artifacts` exclude each other", "files are of one run")
    elif step.tool is not None and step.tool.workspace:
        report.key(at, "E1114", f"`cache` does not go with `{step.tool.tool}`", "it works with the files of one run")
