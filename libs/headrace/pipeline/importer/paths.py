"""Old paths as paths of a run's workspace."""

import posixpath


def is_absolute(path: str) -> bool:
    """Starts at a root, a home or a drive."""
    return path.startswith(("/", "~", "\\")) or path[1:3] in (":\\", ":/")


def tidy(path: str) -> str:
    """The path without `./` and doubled slashes; `..` in the middle is resolved."""
    return posixpath.normpath(path) if path.strip() else "."


def escapes(path: str) -> bool:
    """Whether it leaves the directory it is relative to."""
    return is_absolute(path) or tidy(path).split("/")[0] == ".."


def beneath(path: str) -> str:
    """The same path without what leads upwards at its front."""
    parts = tidy(path).split("/")
    while parts and parts[0] == "..":
        parts.pop(0)
    return "/".join(parts) or "."


def in_workspace(path: str, workspace_dir: str) -> str:
    """The path relative to the old workspace directory, which is the run's workspace now."""
    plain = tidy(path)
    for folder in (tidy(workspace_dir), "workspace"):
        if plain == folder:
            return "."
        if folder != "." and plain.startswith(f"{folder}/"):
            return plain[len(folder) + 1 :]
    return plain
