"""Which versions of tools there are: the fold of HR_TOOLS. A run pins what is newest when it begins."""

from headrace.contracts import events as ev
from headrace.contracts import subjects
from headrace.pipeline.plan import Plan
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Broker, Stored
from headrace.runtime.projection import Projection


class ToolVersions:
    """Enabled versions by tenant and tool, the newest last. `fold.run` is a supervised child."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._enabled: dict[tuple[str, str], dict[str, None]] = {}
        self.fold = Projection(
            broker,
            stream=subjects.TOOLS,
            filters=(subjects.TOOLS_ALL,),
            clock=clock,
            apply=self._apply,
            reset=self._enabled.clear,
        )

    def _apply(self, _stored: Stored, message: ev.StoredMessage) -> None:
        match message:
            case ev.ToolRegistered(tenant=tenant, data=spec):
                versions = self._enabled.setdefault((tenant, spec.tool), {})
                versions.pop(spec.version, None)  # registered again: it is the newest again
                versions[spec.version] = None
            case ev.ToolDisabled(tenant=tenant, data=named):
                self._enabled.get((tenant, named.tool), {}).pop(named.version, None)
            case _:
                pass  # of no concern here

    def pins(self, tenant: str, plan: Plan) -> dict[str, str]:
        """The newest version of each tool that a step of the plan calls, by name; those that nobody has registered are
        left out, and so are steps that say themselves which version they want."""
        tools = sorted({node.tool for node in plan.nodes if node.tool and not node.version})
        newest = {tool: next(reversed(self._enabled.get((tenant, tool), {})), "") for tool in tools}
        return {tool: version for tool, version in newest.items() if version}
