"""Compiled definitions by digest, loaded from their blobs once."""

import asyncio
from collections import OrderedDict
from typing import Final

from headrace.contracts import names
from headrace.contracts.subjects import DEFINITION_ROOT
from headrace.pipeline.compile import compile_plan
from headrace.pipeline.plan import Plan
from headrace.pipeline.prices import PriceTable, shipped
from headrace.runtime import blobs
from headrace.runtime.eventlog import Broker

PLANS_MAX: Final = 256
"""A plan of 200 steps takes about 1 MB with its compiled expressions."""
LOAD_DEADLINE_S: Final = 2 * names.PUBLISH_DEADLINE_S


class Plans:
    """An LRU of plans. A definition is immutable and named by its digest, so nothing is ever stale.

    Args:
        prices: What their models cost here; the shipped table unless given.
    """

    def __init__(self, broker: Broker, *, prices: PriceTable | None = None) -> None:
        self._broker = broker
        self.prices = shipped() if prices is None else prices
        self._plans: OrderedDict[tuple[str, str], Plan] = OrderedDict()

    def at_hand(self, tenant: str, digest: str) -> Plan | None:
        """The plan if it is in memory."""
        plan = self._plans.get((tenant, digest))
        if plan is not None:
            self._plans.move_to_end((tenant, digest))
        return plan

    async def get(self, tenant: str, digest: str) -> Plan:
        """The plan, loaded if need be.

        Raises:
            NotFoundError: no such definition is stored.
            DefinitionError: it is stored and this release refuses it.
            UnavailableError: the broker does not answer.
        """
        plan = self.at_hand(tenant, digest)
        if plan is not None:
            return plan
        async with asyncio.timeout(LOAD_DEADLINE_S):
            data = await blobs.get(self._broker, tenant, f"{DEFINITION_ROOT}/{digest}", size_max=names.VALUE_BYTES_MAX)
        plan = compile_plan(data)
        self._plans[(tenant, digest)] = plan
        while len(self._plans) > PLANS_MAX:
            self._plans.popitem(last=False)
        return plan
