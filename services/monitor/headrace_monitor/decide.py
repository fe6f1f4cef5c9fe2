"""The monitor's only events: alerts about what it has seen. Pure: the instant is an argument."""

from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.events import Alert, AlertCleared, AlertRaised
from headrace.contracts.failure import Failure
from headrace.contracts.ids import event_id
from headrace.contracts.live import Beat


def silent_alert(beat: Beat, *, tenant: str, source: str, time: str) -> AlertRaised:
    """A process has fallen silent. Its id covers the last beat, so that two monitors raise one alert."""
    about = f"{beat.service}/{beat.instance}"
    text = f"{about}: no beat after number {beat.counter}; if it is not restarted by its supervisor, look at its log"
    tag = "io.headrace.alert.raised.v1"
    return AlertRaised(
        specversion=SPECVERSION,
        id=event_id(tag, tenant, "service-silent", about, beat.boot, beat.counter),
        source=source,
        time=time,
        schemaver=1,
        tenant=tenant,
        data=Alert(
            rule="service-silent",
            about=about,
            failure=Failure(code="service_silent", message=text, retryable=True),
        ),
    )


def silent_over(beat: Beat, *, tenant: str, source: str, time: str) -> AlertCleared:
    """The silence after `beat` is over: the process beats again, has left, or was forgotten."""
    about = f"{beat.service}/{beat.instance}"
    tag = "io.headrace.alert.cleared.v1"
    return AlertCleared(
        specversion=SPECVERSION,
        id=event_id(tag, tenant, "service-silent", about, beat.boot, beat.counter),
        source=source,
        time=time,
        schemaver=1,
        tenant=tenant,
        data=Alert(rule="service-silent", about=about),
    )
