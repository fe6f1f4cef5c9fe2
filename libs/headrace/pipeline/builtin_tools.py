"""The tools that every executor has: what they take, give and touch. Data only; the executor does just this.

`fs.*` writes go to paths relative to the run's workspace. Reads find a relative path in the workspace first,
then under the granted read roots (the run's working directory is the first); an absolute path is read when it
lies in a granted root. Paths in results can be passed to other `fs.*` tools, `file()` and `text.measure` as
they are. Every schema is closed. The executor applies `default` values before the call. Patterns are
linear-time regular expressions (no back references or look-around): a pipeline's input may choose the text.
"""

from collections.abc import Mapping
from typing import Any, Final

from headrace.contracts.events import ToolSpec

VERSION: Final = "1.0.0"
READ_BYTES_MAX: Final = 16 * 1024 * 1024
"""A file read whole into a value; more than this belongs in a tool that streams."""
PATHS_MAX: Final = 100_000
"""As many as a `foreach` takes items."""
HTTP_BYTES_MAX: Final = 64 * 1024 * 1024
"""Decompressed; the same bound as a value."""


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """A closed object schema. A trailing `_` lets a property be called like a Python keyword."""
    fields = {name.rstrip("_"): schema for name, schema in properties.items()}
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": fields}
    if required:
        schema["required"] = list(required)
    return schema


def _one_of(schema: dict[str, Any], *names: str) -> dict[str, Any]:
    """The schema with exactly one of these properties required."""
    return schema | {"oneOf": [{"required": [name]} for name in names]}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description} | more


def _whole(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "integer", "description": description} | more


def _flag(description: str, *, default: bool) -> dict[str, Any]:
    return {"type": "boolean", "description": description, "default": default}


def _list(items: dict[str, Any], description: str) -> dict[str, Any]:
    return {"type": "array", "items": items, "description": description}


def _any(description: str) -> dict[str, Any]:
    return {"description": description}


_PATH: Final = _text("path", minLength=1, maxLength=4096)
_WRITTEN: Final = _object(
    ("path", "bytes", "sha256"),
    path=_text("the file, relative to the workspace"),
    bytes=_whole("size of the file now", minimum=0),
    sha256=_text("of the whole file, lower-case hex"),
)


def _spec(tool: str, description: str, args: dict[str, Any], result: dict[str, Any], **more: Any) -> ToolSpec:
    return ToolSpec(tool=tool, version=VERSION, description=description, args=args, result=result, **more)


def _reading_tools() -> tuple[ToolSpec, ...]:
    read = _spec(
        "fs.read",
        "Read a file. `content` is text, lines, a JSON value, a list of JSON values, or base64 text.",
        _object(
            ("path",),
            path=_PATH,
            format={"enum": ["text", "lines", "json", "jsonl", "base64"], "default": "text"},
            max_bytes=_whole(
                "a larger file is an error `too_large`", minimum=1, maximum=READ_BYTES_MAX, default=1 << 20
            ),
        ),
        _object(
            ("path", "content", "bytes", "sha256"),
            path=_text("as given"),
            content=_any("depends on `format`"),
            bytes=_whole("size of the file", minimum=0),
            sha256=_text("of the file, lower-case hex"),
        ),
        workspace=True,
    )
    glob = _spec(
        "fs.glob",
        "Files that match a pattern (`*`, `?`, `[…]`, `**`), sorted by path; directories are not listed.",
        _object(
            ("pattern",),
            pattern=_text("relative to `dir`", minLength=1, maxLength=1024),
            dir=_text("where to look; result paths start with it unless it is `.`", maxLength=4096, default="."),
            limit=_whole("at most so many paths, the first by order", minimum=1, maximum=PATHS_MAX, default=1000),
            hidden=_flag("also names that start with a dot", default=False),
        ),
        _object(
            ("paths", "count", "truncated"),
            paths=_list({"type": "string"}, "sorted"),
            count=_whole("length of `paths`", minimum=0),
            truncated={"type": "boolean", "description": "there were more than `limit`"},
        ),
        workspace=True,
    )
    return (read, glob)


def _looking_tools() -> tuple[ToolSpec, ...]:
    hit = _object(
        ("path", "line", "text"),
        path=_text("file"),
        line=_whole("counts from 1", minimum=1),
        text=_text("the line, cut to 500 characters"),
    )
    grep = _spec(
        "fs.grep",
        "Lines that match a linear-time regular expression, in the UTF-8 files of a glob.",
        _object(
            ("pattern",),
            pattern=_text("regular expression", minLength=1, maxLength=1024),
            glob=_text("which files", minLength=1, maxLength=1024, default="**/*"),
            dir=_text("where to look", maxLength=4096, default="."),
            ignore_case=_flag("match without regard to case", default=False),
            limit=_whole("at most so many matches", minimum=1, maximum=10_000, default=200),
        ),
        _object(
            ("matches", "count", "truncated"),
            matches=_list(hit, "by path, then line"),
            count=_whole("length of `matches`", minimum=0),
            truncated={"type": "boolean", "description": "there were more than `limit`"},
        ),
        workspace=True,
    )
    stat = _spec(
        "fs.stat",
        "Whether a path exists and what it is. A missing path is a result, not an error.",
        _object(("path",), path=_PATH),
        _object(
            ("path", "exists", "kind", "bytes"),
            path=_text("as given"),
            exists={"type": "boolean"},
            kind={"enum": ["file", "directory", "other", "missing"]},
            bytes=_whole("size of a file, else 0", minimum=0),
            modified_ms=_whole("Unix time of the last change, where it exists", minimum=0),
        ),
        workspace=True,
    )
    return (grep, stat)


def _writing_tools() -> tuple[ToolSpec, ...]:
    content = {
        "text": _text("written as UTF-8"),
        "json": _any("written as JSON, indented by two, with a final newline"),
        "base64": _text("bytes, base64", contentEncoding="base64"),
    }
    write = _spec(
        "fs.write",
        "Write a file of the workspace whole, in one step: readers see the old or the new content.",
        _one_of(
            _object(
                ("path",),
                path=_PATH,
                **content,
                overwrite=_flag("false: an existing file is an error `exists`", default=True),
            ),
            "text",
            "json",
            "base64",
        ),
        _WRITTEN,
        risk="write",
        workspace=True,
    )
    append = _spec(
        "fs.append",
        "Append text to a file of the workspace; a missing file is made. Not repeatable, so at most once.",
        _object(("path", "text"), path=_PATH, text=_text("written as UTF-8, nothing added")),
        _WRITTEN,
        effect="at_most_once",
        risk="write",
        workspace=True,
    )
    from_to = _object(
        ("from", "to"),
        from_=_PATH,
        to=_PATH,
        overwrite=_flag("false: an existing target is an error `exists`", default=True),
    )
    copy = _spec("fs.copy", "Copy a file into the workspace.", from_to, _WRITTEN, risk="write", workspace=True)
    move = _spec(
        "fs.move",
        "Rename a file inside the workspace. Not repeatable, so at most once.",
        from_to,
        _WRITTEN,
        effect="at_most_once",
        risk="write",
        workspace=True,
    )
    delete = _spec(
        "fs.delete",
        "Delete a file of the workspace. That it is already gone is fine unless `missing_ok` is false.",
        _object(("path",), path=_PATH, missing_ok=_flag("false: a missing file is an error", default=True)),
        _object(("path", "deleted"), path=_text("as given"), deleted={"type": "boolean"}),
        risk="write",
        workspace=True,
    )
    return (write, append, copy, move, delete)


def _converting_tools() -> tuple[ToolSpec, ...]:
    formats = {"enum": ["csv", "json", "jsonl", "yaml"], "description": "default: by the name's ending"}
    convert = _spec(
        "fs.convert",
        "Convert a file of records. CSV has a header line and text values; JSON and YAML hold a list.",
        _object(("from", "to"), from_=_PATH, to=_PATH, from_format=formats, to_format=formats),
        _object(
            ("path", "bytes", "sha256", "records"),
            **_WRITTEN["properties"],
            records=_whole("records converted", minimum=0),
        ),
        risk="write",
        workspace=True,
    )
    return (convert,)


def _json_tools() -> tuple[ToolSpec, ...]:
    problem = _object(("path", "message"), path=_text("JSON pointer into the value"), message=_text("what is wrong"))
    validate = _spec(
        "json.validate",
        "Check a value against a JSON Schema. An invalid value is a result; an invalid schema is an error.",
        _object(("value", "schema"), value=_any("what to check"), schema={"type": ["object", "boolean"]}),
        _object(("valid", "errors"), valid={"type": "boolean"}, errors=_list(problem, "at most 50")),
        effect="pure",
    )
    parse = _spec(
        "json.parse",
        "The value of JSON text. Duplicate keys, NaN and integers beyond 64 bits are errors.",
        _object(("text",), text=_text("one JSON value")),
        _object(("value",), value=_any("the value")),
        effect="pure",
    )
    return (validate, parse)


def _text_tools() -> tuple[ToolSpec, ...]:
    split = _spec(
        "text.split",
        "Cut text into parts of at most `size` characters, at paragraph, line, word, then anywhere.",
        _object(
            ("text",),
            text=_text("what to cut"),
            size=_whole("characters a part", minimum=1, maximum=1_000_000, default=4000),
            overlap=_whole("characters repeated from the part before; less than `size`", minimum=0, default=0),
        ),
        _object(
            ("parts", "count"),
            parts=_list({"type": "string"}, "in order"),
            count=_whole("of parts", minimum=0),
        ),
        effect="pure",
    )
    block = _object(("language", "code"), language=_text("after the fence, may be empty"), code=_text("inside"))
    code = _spec(
        "text.extract_code",
        "Fenced code blocks of Markdown text.",
        _object(("text",), text=_text("Markdown"), language=_text("only blocks of this language")),
        _object(("blocks", "count"), blocks=_list(block, "in order"), count=_whole("of blocks", minimum=0)),
        effect="pure",
    )
    link = _object(("url", "text"), url=_text("address"), text=_text("link text, or the address again"))
    links = _spec(
        "text.extract_links",
        "Markdown links and bare http(s) addresses in text, each address once.",
        _object(("text",), text=_text("any text")),
        _object(("links", "count"), links=_list(link, "in order"), count=_whole("of links", minimum=0)),
        effect="pure",
    )
    return (split, code, links, _measure())


def _measure() -> ToolSpec:
    numbers = {
        "lines": "lines; a last one without newline counts",
        "blank_lines": "lines of white space only",
        "chars": "Unicode characters",
        "longest_line": "characters of the longest line, newline not counted",
        "words": "runs of non-space characters",
        "functions": "`def` and `async def`; 0 unless the text is Python",
        "classes": "`class` statements; 0 unless the text is Python",
        "comment_lines": "lines that start with `#`; 0 unless the text is Python",
    }
    counts = {name: _whole(description, minimum=0) for name, description in numbers.items()}
    return _spec(
        "text.measure",
        "Count lines, words and characters, and functions, classes and comments of Python text.",
        _one_of(
            _object(
                text=_text("what to measure"),
                path=_PATH,
                language={
                    "enum": ["python", "text"],
                    "description": "default: python for a path ending in .py, else text",
                },
            ),
            "text",
            "path",
        ),
        _object(
            ("path", "language", *counts),
            path=_text("as given, else empty"),
            language=_text("what it was measured as"),
            **counts,
        ),
        workspace=True,  # only with `path`, but a tool's queue is known before its arguments are
    )


def _http_tools() -> tuple[ToolSpec, ...]:
    words = {"type": "object", "additionalProperties": {"type": "string"}}
    body = {
        "json": _any("body as JSON; sets content-type"),
        "text": _text("body as UTF-8 text"),
        "base64": _text("body as bytes", contentEncoding="base64"),
    }
    args = _object(
        ("url",),
        method={"enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], "default": "GET"},
        url=_text("http or https", minLength=8, maxLength=8192, pattern="^https?://"),
        headers=words | {"description": "an idempotency-key header is added for methods that change something"},
        query=words | {"description": "added to the address, encoded"},
        **body,
        max_bytes=_whole("decompressed body; more is `too_large`", minimum=1, maximum=HTTP_BYTES_MAX, default=4 << 20),
        redirects_max=_whole("followed, each checked as the first address", minimum=0, maximum=10, default=5),
        accept_status=_list({"type": "integer", "minimum": 100, "maximum": 599}, "not an error; default 200 to 299"),
    )
    args["not"] = {
        "anyOf": [
            {"required": ["json", "text"]},
            {"required": ["json", "base64"]},
            {"required": ["text", "base64"]},
        ]
    }
    request = _spec(
        "http.request",
        "One HTTP request to a public address. 429 and 5xx are retryable errors, others outside 2xx are not.",
        args,
        _object(
            ("status", "url", "headers", "bytes", "sha256"),
            status=_whole("HTTP status", minimum=100, maximum=599),
            url=_text("the address that answered"),
            headers=words | {"description": "lower-case names"},
            json=_any("the body, where its content type says JSON"),
            text=_text("the body, where it is text but not JSON"),
            base64=_text("the body, where it is neither"),
            bytes=_whole("of the decompressed body", minimum=0),
            sha256=_text("of the decompressed body"),
        ),
        risk="outbound",
    )
    return (request,)


def builtin_tools() -> tuple[ToolSpec, ...]:
    """Every built-in tool, by name."""
    files = (*_reading_tools(), *_looking_tools(), *_writing_tools(), *_converting_tools())
    tools = (*files, *_json_tools(), *_text_tools(), *_http_tools())
    return tuple(sorted(tools, key=lambda tool: tool.tool))


BUILTIN_TOOLS: Final[Mapping[str, ToolSpec]] = {tool.tool: tool for tool in builtin_tools()}
"""Name → tool."""
