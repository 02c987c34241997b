"""Folders of photographs on this machine that are used in place: linked in photographs/, not copied."""

from __future__ import annotations

import os
from pathlib import Path

from defectflow.config.run_settings import name_of
from defectflow.core.files import UserError
from defectflow.desk.project import Project


def take(project: Project, folder: Path) -> str:
    """Link a folder and allow it in config.yaml; a folder that is already linked is kept.

    Returns:
        The name of the link in photographs/.

    Raises:
        UserError: there is no such folder, or it contains the desk's folder or is inside it.
    """
    real = folder.expanduser().resolve()
    if not real.is_dir():
        raise UserError(f"{folder}: no such folder on the machine of the desk")
    if real == project.folder or project.folder in real.parents or real in project.folder.parents:
        raise UserError(f"{folder}: contains the folder of the desk, or is inside it (choose another one)")
    with project.lock:
        taken = {os.path.realpath(path): path.name for path in project.photographs.iterdir() if path.is_symlink()}
        if str(real) in taken:
            return taken[str(real)]
        name, number = name_of(real.name), 1
        while (project.photographs / name).exists() or (project.photographs / name).is_symlink():
            number += 1
            name = f"{name_of(real.name)}-{number}"
        project.change_entry({"links": [*project.links(), str(real)]})
        (project.photographs / name).symlink_to(real)
    return name


def listed(project: Project) -> list[dict[str, str]]:
    """The linked folders: {name of the link, path}."""
    links = (path for path in project.photographs.iterdir() if path.is_symlink())
    return [{"name": path.name, "path": os.path.realpath(path)} for path in sorted(links)]


def give_back(project: Project, name: str) -> None:
    """Remove a link; the photographs are not touched.

    Raises:
        UserError: there is no link with this name.
    """
    with project.lock:
        found = next((path for path in project.photographs.iterdir() if path.is_symlink() and path.name == name), None)
        if found is None:
            raise UserError(f"{name[:100]}: no linked folder has this name")
        real = os.path.realpath(found)
        found.unlink()
        kept = [link for link in project.links() if os.path.realpath(link) != real]
        project.change_entry({"links": kept or None})
