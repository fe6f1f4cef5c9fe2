"""A pull consumer that is always asked for more: requests with idle heartbeats, renewed when they die.

A pull request dies silently with the server, the connection, or a change of leader. So requests ask for a heartbeat
every second, and after two seconds without any frame, or at once after a reconnect, they are given up together: a new
inbox is taken, so that the old requests have no reader and the server drops them, and messages are asked for afresh.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from headrace.runtime import jetstream_wire as wire
from headrace.runtime.jetstream_link import Link

HEARTBEAT_S: Final = 1.0
EXPIRES_S: Final = 30.0
"""A request that lives longer only saves one message in 30 s, and keeps a forgotten one alive."""
TICK_S: Final = 0.5
SILENT_TICKS_MAX: Final = 3
"""The next tick is 2 s after the last frame: two heartbeats. Counted in ticks, not in time: a blocked event loop has
frames waiting that it has not seen."""
NO_RESPONDERS: Final = 503


class Puller:
    """Requests messages from one consumer; its owner says how many it can take.

    Args:
        on_message: Gets subject, reply, body and raw headers of each message.
        on_idle: Gets the consumer sequence that a heartbeat reports as the last delivered one.
        on_refused: Gets code and text of an answer that no limit explains: is the consumer still there?
        on_room: Some requests ended unanswered, or the connection is back: ask again with `ask`.
    """

    def __init__(
        self,
        link: Link,
        *,
        stream: str,
        consumer: str,
        on_message: Callable[[bytes, bytes, bytes, bytes], None],
        on_idle: Callable[[int], None],
        on_refused: Callable[[int, str], None],
        on_room: Callable[[], None],
    ) -> None:
        self._link, self._loop = link, asyncio.get_running_loop()
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._on_message, self._on_idle = on_message, on_idle
        self._on_refused, self._on_room = on_refused, on_room
        self.outstanding = 0
        """Messages asked for and not yet received."""
        self.repulls = 0
        """How often requests were given up because nothing was heard."""
        self._silent_ticks = 0
        self._asked_ticks = 0
        self._sid = 0
        self._inbox = ""
        self._tick: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Listen. Nothing is asked for until `ask`."""
        self._fresh_inbox()
        self._tick = self._loop.call_later(TICK_S, self._on_tick)
        self._link.attach(self)

    def ask(self, count: int, *, bytes_max: int = 0) -> None:
        """Ask for `count` messages more; nothing happens while disconnected, because `on_room` will come."""
        if not self._link.connected or self._tick is None:
            return
        request = {
            "batch": count,
            "expires": int(EXPIRES_S * wire.NS_PER_S),
            "idle_heartbeat": int(HEARTBEAT_S * wire.NS_PER_S),
        }
        if bytes_max:
            request["max_bytes"] = bytes_max
        self._link.send(self._subject, wire.encode(request), reply=self._inbox)
        self.outstanding += count
        self._asked_ticks = 0

    def renew(self) -> None:
        """Give up all requests; the owner asks again."""
        self._fresh_inbox()
        self._on_room()

    def stop(self) -> None:
        """Stop listening; messages under way are lost to this reader. Idempotent."""
        self._end()
        self._link.forget(self._sid)

    async def stop_after_last(self) -> None:
        """Stop listening, but hand over what the server has already sent. Idempotent."""
        self._end()
        await self._link.forget_after_last(self._sid)

    def link_down(self) -> None:
        """Requests died with the connection. The inbox must not be heard again, or the server may revive them."""
        self._link.forget(self._sid)
        self.outstanding = 0

    def link_up(self) -> None:
        """Ask again at once."""
        self.renew()

    def _end(self) -> None:
        self._link.detach(self)
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def _fresh_inbox(self) -> None:
        self._link.forget(self._sid)
        self._inbox = self._link.new_inbox()
        self._sid = self._link.listen(self._inbox, self._on_frame)
        self.outstanding = self._silent_ticks = self._asked_ticks = 0

    def _on_tick(self) -> None:
        self._tick = self._loop.call_later(TICK_S, self._on_tick)
        self._silent_ticks += 1
        self._asked_ticks += 1
        if not self._link.connected or not self.outstanding:
            return
        miscounted = self._asked_ticks * TICK_S > EXPIRES_S + 2  # every request has expired by then
        if self._silent_ticks > SILENT_TICKS_MAX or miscounted:
            self.repulls += 1
            self.renew()

    def _on_frame(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self._silent_ticks = 0
        if reply.startswith(wire.ACK_PREFIX):
            if self.outstanding:
                self.outstanding -= 1
            self._on_message(subject, reply, data, headers)
            return
        code, text = wire.status_of(headers)
        fields = wire.parse_headers(headers)
        if code == 100:
            self._on_idle(int(fields.get("Nats-Last-Consumer", "0")))
            return
        ended = int(fields.get("Nats-Pending-Messages", "0"))
        self.outstanding = max(0, self.outstanding - ended) if ended else 0
        if code == NO_RESPONDERS or "Deleted" in text or code == 400 or "Exceeded" in text:
            self.outstanding = 0
            self._on_refused(code, text)
        else:
            self._on_room()
