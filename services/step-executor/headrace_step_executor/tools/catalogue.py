"""Built-in tools by name: what `headrace.pipeline.builtin_tools` describes, done."""

from collections.abc import Mapping

from headrace_step_executor.tools import convert, fs_read, fs_write, jsons, text
from headrace_step_executor.tools.call import ToolFunction


def builtin_functions(http: ToolFunction) -> Mapping[str, ToolFunction]:
    """Name → function, for every tool of BUILTIN_TOOLS. `http` knows what the operator allows."""
    return {
        "fs.append": fs_write.append,
        "fs.convert": convert.convert,
        "fs.copy": fs_write.copy,
        "fs.delete": fs_write.delete,
        "fs.glob": fs_read.glob,
        "fs.grep": fs_read.grep,
        "fs.move": fs_write.move,
        "fs.read": fs_read.read,
        "fs.stat": fs_read.stat_,
        "fs.write": fs_write.write,
        "http.request": http,
        "json.parse": jsons.parse,
        "json.validate": jsons.validate,
        "text.extract_code": text.extract_code,
        "text.extract_links": text.extract_links,
        "text.measure": text.measure,
        "text.split": text.split,
    }
