"""An operator's own prices, from a file over the shipped table."""

from pathlib import Path
from typing import Any

from headrace.contracts.canonical import sha256_hex
from headrace.contracts.errors import ConfigError
from headrace.pipeline.loader import load_bytes
from headrace.pipeline.prices import UNITS, ModelPrice, PriceTable, price_of, shipped


def table_of(file: Path | None) -> PriceTable:
    """The shipped table, with the operator's file over it where there is one.

    Raises:
        ConfigError: it cannot be read. See also `read_own`.
    """
    if file is None:
        return shipped()
    try:
        data = file.read_bytes()
    except OSError as error:
        msg = f"{file}: {error.strerror}"
        raise ConfigError(msg) from error
    return read_own(data, str(file))


def read_own(data: bytes, file: str, *, over: PriceTable | None = None) -> PriceTable:
    """The table of an operator's file, over the shipped one. YAML or JSON:

    ```yaml
    version: contract-7          # optional
    models:
      openai/gpt-5-mini: {input: 0.2, output: 1.6, cached: 0.02}   # US dollars a million tokens
      openai/*: {input: 0, output: 0}                              # every other model of the provider
    ```
    `cached` is the price of `input` unless given, `reasoning` that of `output`; `context` is how many tokens one call
    can be given.

    Raises:
        ConfigError: it is no such file, with every entry that does not fit.
        DefinitionError: it is not YAML.
    """
    document = load_bytes(data, file).document
    table = shipped() if over is None else over
    if not isinstance(document, dict) or not isinstance(document.get("models"), dict):
        msg = f"{file}: a price table is a map with `models`, and perhaps `version`"
        raise ConfigError(msg)
    problems = [f"{file}: unknown key `{key}`" for key in document if key not in ("version", "models")]
    own: dict[str, ModelPrice] = {}
    for model, row in document["models"].items():
        try:
            own[model.lower()] = _own_price(model, row)
        except ValueError as error:
            problems.append(f"{file}: {model[:100]}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    named = str(document.get("version", sha256_hex(data)[:12]))[:60]
    return table.with_own(f"{table.version} + {named}", own)


def _own_price(model: str, row: Any) -> ModelPrice:
    if not all(model.partition("/")):
        msg = "a model is named provider/model"
        raise ValueError(msg)
    if not isinstance(row, dict) or not {"input", "output"} <= row.keys() <= {*UNITS, "context"}:
        msg = "prices are `input`, `output` and perhaps `cached`, `reasoning`; beside them `context`"
        raise ValueError(msg)
    return price_of(row, model)
