"""The words of `headrace tools`; what they do is imported when it is asked for."""

from typing import Annotated

import typer

from headrace.cli.words import DataDir, Ended, Json

tools = typer.Typer(help="The tool catalogue; alone it lists it.", invoke_without_command=True, rich_markup_mode=None)
Tool = Annotated[str, typer.Argument(metavar="TOOL", help="E.g. mcp.files.read_file.")]


@tools.callback()
def listed(context: typer.Context, as_json: Json = False, data_dir: DataDir = None) -> None:
    """List every tool that may be called, and changed ones that wait for approval."""
    if context.invoked_subcommand is None:
        from headrace.cli.tools import list_command

        raise Ended(list_command(data_dir, as_json=as_json))


@tools.command()
def approve(tool: Tool, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Allow a tool as its server describes it now."""
    from headrace.cli.tools import approve_command

    raise Ended(approve_command(tool, data_dir=data_dir, as_json=as_json))
