"""What is said to a model and by it, whatever wire it speaks: messages of typed parts, tools, what is left of a quota.

A tool loop hands a model's own words back as they came: the parts of a response become the content of the assistant's
next message, results of tools follow in one message of role `tool`.
"""

import json
from typing import Any, Final

import msgspec

TOOL_NAME: Final = r"[A-Za-z0-9_-]{1,64}"
"""What every provider takes as a tool's name. Ours have dots: whoever offers tools maps names there and back."""


class TextPart(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """Words."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="image"):
    """A picture: an address that the provider fetches, or the bytes in base64 with their media type."""

    url: str = ""
    data: str = ""
    media_type: str = ""


class ToolCallPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="tool_call"):
    """The model wants a tool called."""

    id: str
    name: str
    arguments: str
    """JSON text as the model wrote it: whoever calls the tool checks it, and an error goes back to the model."""
    signature: str = ""
    """The provider's own mark on the call, to be handed back with it."""


class ToolResultPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="tool_result"):
    """What came of a call. `id` and `name` are those of the call."""

    id: str
    name: str
    content: str
    is_error: bool = False


class OwnPart(msgspec.Struct, frozen=True, kw_only=True, tag="own"):
    """What only one provider understands, e.g. a signed thought. Handed back word for word, to others not at all."""

    provider: str
    data: dict[str, Any]


Part = TextPart | ImagePart | ToolCallPart | ToolResultPart | OwnPart


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation. `role`: system, user, assistant or tool."""

    role: str
    content: str | tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts."""
        return (TextPart(text=self.content),) if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """What is said in words."""
        if isinstance(self.content, str):
            return self.content
        return text_of(self.content)

    @property
    def said(self) -> str:
        """What is said in words or as results of tools."""
        if isinstance(self.content, str):
            return self.content
        results = [part.content for part in self.content if isinstance(part, ToolResultPart)]
        return "".join((text_of(self.content), *results))


class ToolOffer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that the model may ask for. `name` matches TOOL_NAME; `parameters` is a JSON Schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any]


class Quota(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the headers of an answer say is left of a credential's limits; −1 where they say nothing.

    `…_reset_ms`: how long until the limit is whole again.
    """

    requests_limit: int = -1
    requests_left: int = -1
    requests_reset_ms: int = -1
    tokens_limit: int = -1
    tokens_left: int = -1
    tokens_reset_ms: int = -1


def text_of(parts: tuple[Part, ...]) -> str:
    """The words among the parts."""
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def input_of(call: ToolCallPart) -> dict[str, Any]:
    """Arguments as an object, which is all that wires without text for them can carry."""
    try:
        found = json.loads(call.arguments or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"arguments": call.arguments}
