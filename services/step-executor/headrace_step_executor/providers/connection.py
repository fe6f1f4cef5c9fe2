"""What the adapters over official SDKs share: a client that is made late, a call that ends in time, errors of the wire.

An SDK is imported at the first call, in a thread, because that takes longer than this process may be silent. The
connections below it are ours, so that a key that was rotated gets a new client over the same connections.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from headrace.contracts import names
from headrace.runtime.clock import Clock
from headrace.runtime.values import without_surrogates
from headrace_step_executor.providers.failures import ProviderError, provider_error
from headrace_step_executor.providers.protocol import GenerateResponse, OnDelta
from headrace_step_executor.retry_after import retry_after_ms

CONNECT_S: Final = 5.0
GAP_S: Final = 60.0
"""Longest silence within an answer that comes in pieces, its beginning included."""
CONNECTIONS_MAX: Final = 256
"""To one provider from one process; bulkheads keep the number of calls far below."""
ANSWER_CHARS_MAX: Final = 8 * 1024 * 1024
"""Far beyond any model's longest answer: a stream that never ends is given up there."""
MISSING: Final = "provider_missing"
LATE: Final = "timeout"


@dataclass(slots=True, frozen=True)
class Vendor:
    """What an adapter says of itself. `extra` is what has to be installed, `key_name` the variable with the key."""

    name: str
    extra: str
    key_name: str


class Connection:
    """An SDK's client. Nothing is imported and nothing connected before the first call.

    Args:
        key: Asked for at every call, in a thread: a file may have been rotated.
        make: (key, httpx2.AsyncClient) → the SDK's client. May import; runs in a thread.
        keyless: A server of one's own may want no key.
    """

    def __init__(
        self, vendor: Vendor, *, key: Callable[[], str], make: Callable[[str, Any], Any], keyless: bool
    ) -> None:
        self._vendor, self._key, self._make, self._keyless = vendor, key, make, keyless
        self._http: Any = None
        self._client: Any = None
        self._client_key = ""
        self._making = asyncio.Lock()

    async def client(self, deadline_s: float) -> Any:
        """The client for the key of this moment.

        Raises:
            ProviderError: `provider_missing` without a key or the SDK, `timeout`.
        """
        try:
            async with asyncio.timeout(deadline_s), self._making:
                key = await asyncio.to_thread(self._key)
                if self._client is None or key != self._client_key:
                    if not key and not self._keyless:
                        name = self._vendor.key_name
                        text = f"the provider `{self._vendor.name}` has no key: set {name} or {name}_FILE"
                        raise provider_error(MISSING, text)
                    self._client = await asyncio.to_thread(self._made, key)
                    self._client_key = key
                return self._client
        except ImportError as error:
            vendor = self._vendor
            text = f"the provider `{vendor.name}` needs the extra: pip install 'headrace[{vendor.extra}]'"
            raise provider_error(MISSING, text) from error
        except TimeoutError as error:
            raise provider_error(LATE, f"the SDK was not loaded within {deadline_s:.3f} s") from error

    def _made(self, key: str) -> Any:
        import httpx2

        if self._http is None:
            # The attempt's own deadline bounds every call; these bound silences.
            timeout = httpx2.Timeout(connect=CONNECT_S, read=GAP_S, write=GAP_S, pool=GAP_S)
            limits = httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
            # A provider that sends a key elsewhere is none.
            self._http = httpx2.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False)
        return self._make(key, self._http)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._http is not None:
            await self._http.aclose()


class Heard:
    """The words of an answer as far as they have come."""

    def __init__(self, on_delta: OnDelta | None) -> None:
        self._on_delta, self._pieces, self._chars = on_delta, list[str](), 0
        self.replaced = False
        self.began = False

    @property
    def streams(self) -> bool:
        """Somebody wants the answer in pieces."""
        return self._on_delta is not None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._pieces)

    def add(self, piece: str) -> None:
        """More of it.

        Raises:
            ProviderError: `malformed`, it does not end.
        """
        self.began = True
        self.weigh(piece)
        clean = self.clean(piece)
        self._pieces.append(clean)
        if clean and self._on_delta is not None:
            self._on_delta(clean)

    def weigh(self, piece: str) -> None:
        """More of it that is no words.

        Raises:
            ProviderError: `malformed`, it does not end.
        """
        self._chars += len(piece)
        if self._chars > ANSWER_CHARS_MAX:
            msg = "malformed"
            raise provider_error(msg, f"an answer of more than {ANSWER_CHARS_MAX} characters")

    def clean(self, text: str) -> str:
        """The text as Unicode; what is none becomes U+FFFD, and is remembered."""
        clean: str = without_surrogates(text)
        self.replaced = self.replaced or clean != text
        return clean

    def clean_value(self, value: Any) -> Any:
        """The same of every text within a JSON value."""
        clean = without_surrogates(value)
        self.replaced = self.replaced or clean != value
        return clean


def patient(left_s: float) -> Any:
    """Time limits of a call whose whole answer comes after one silence."""
    import httpx2

    return httpx2.Timeout(left_s, connect=CONNECT_S)


def check_stream(headers: Any) -> None:
    """Return when an answer is a stream of events.

    Raises:
        ProviderError: `malformed`, it is something else.
    """
    kind = headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "text/event-stream":
        msg = "malformed"
        raise provider_error(msg, f"the answer is {kind[:60]!r} where a stream of events was asked for")


Work = Callable[[Any, "Heard", float], Awaitable[GenerateResponse]]
"""(the SDK's client, where words go, seconds left) → the answer."""


async def sdk_call(
    connection: Connection,
    work: Work,
    *,
    clock: Clock,
    deadline_s: float,
    on_delta: OnDelta | None,
    as_error: Callable[[Exception], ProviderError],
) -> GenerateResponse:
    """What `work` gives within `deadline_s`, however slowly it comes; what was heard until it failed is in the error.

    Raises:
        ProviderError: `timeout`, or what `as_error` makes of what the SDK raised.
    """
    began_s, heard = clock.monotonic_s(), Heard(on_delta)
    client = await connection.client(deadline_s)
    left_s = max(0.001, deadline_s - (clock.monotonic_s() - began_s))
    try:
        async with asyncio.timeout(left_s) as limit:
            return await work(client, heard, left_s)
    except TimeoutError as error:
        text = f"no complete answer within {deadline_s:.3f} s" if limit.expired() else str(error)
        raise _with_partial(provider_error(LATE, text), heard) from error
    except ProviderError as error:
        raise _with_partial(error, heard)  # noqa: B904  # it is the same error
    except Exception as error:
        raise _with_partial(as_error(error), heard) from error


def _with_partial(error: ProviderError, heard: Heard) -> ProviderError:
    error.partial = heard.text[:1000]
    return error


# --- errors of any wire ------------------------------------------------------------------------------

_BY_STATUS: Final[Mapping[int, str]] = {
    401: "auth", 402: "auth", 403: "auth", 408: "timeout", 425: "unavailable", 429: "rate_limited",
    504: "timeout", 529: "overloaded",
}  # fmt: skip
"""402: the key is good and its account is empty, which the same person mends."""


def status_code(status: int) -> str:
    """The code of an HTTP status that says no more than itself."""
    return _BY_STATUS.get(status) or ("unavailable" if status >= 500 else "invalid_request")


def wait_ms(headers: Any, *, now_ms: int) -> int:
    """What Retry-After asks for, within its rules."""
    return min(retry_after_ms(headers.get("retry-after"), now_ms=now_ms), names.RETRY_AFTER_MS_MAX)


def transport_error(error: BaseException | None) -> ProviderError | None:
    """The error of the connection in a chain of causes; None when there is none."""
    import httpx2

    seen = 0
    while error is not None and seen < 8:  # a longer chain is a loop
        text = f"{type(error).__name__}: {error}"[:500]
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
            return provider_error("connect", text)
        if isinstance(error, httpx2.TimeoutException):
            return provider_error("timeout", f"a silence of more than {GAP_S:g} s: {text}")
        if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError | httpx2.InvalidURL):
            return provider_error("invalid_request", text)
        if isinstance(error, httpx2.RequestError):
            # The request was on its way: whether the model has done its work nobody knows.
            return provider_error("malformed", f"the connection ended before the answer did: {text}")
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def count(holder: Any, *path: str) -> int:
    """A number of tokens below attributes of an SDK's object; 0 where there is none or it is no number."""
    for name in path:
        holder = getattr(holder, name, None)
    return holder if isinstance(holder, int) and not isinstance(holder, bool) and holder >= 0 else 0
