"""Datasets by reference: files and folders below the operator's folders, which are read in place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import FieldProblem, InvalidSpec

POINTER = "/source/path"


def check_folder_source(roots: Sequence[Path], path: str) -> dict[str, Any]:
    """The stored `source` of a dataset: the path as it was given.

    Raises:
        InvalidSpec: there is nothing below any root, or it leads out of it.
    """
    resolve_folder_source(roots, path)
    return {"kind": "folder", "path": path}


def resolve_folder_source(roots: Sequence[Path], path: str) -> Path:
    """Where the file or folder is now: every symbolic link followed, and still below one of the roots.

    Raises:
        InvalidSpec: as `check_folder_source`. The message does not say whether anything exists elsewhere.
    """
    if not roots:
        message = "this service takes no datasets by reference"
        raise InvalidSpec(errors=(FieldProblem("/source", message, "its operator can set BASIN_DATASET_ROOTS"),))
    for root in roots:
        above = root.resolve()
        try:
            found = (above / path).resolve(strict=True)
        except (OSError, ValueError):  # it is missing, a loop of links, too long, or holds NUL
            continue
        if found.is_relative_to(above) and (found.is_file() or found.is_dir()):
            return found
    raise InvalidSpec(errors=(FieldProblem(POINTER, "there is no such file or folder below BASIN_DATASET_ROOTS"),))
