"""Local data in a job file: `data: ./train.csv`, or `data: {path: ./train.csv, target: species}`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from basin.errors import BadFile
from basin.local_data import last_part

UPLOAD_FIELDS: Final = ("format", "options")
"""Fields beside a path that describe the upload; all others are fields of the job's `data`."""


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A path in a job file: what to upload, how to read it, and the fields of `data` beside it."""

    path: Path
    format: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def filename(self) -> str:
        """The name of the file or folder."""
        return last_part(self.path)

    def as_data(self, dataset: str) -> dict[str, Any]:
        """The job's `data` with the dataset in place of the path."""
        return {"name": "dataset", "dataset": dataset, **self.fields}


def find_local_source(spec: Mapping[str, Any], job_file: str) -> LocalSource | None:
    """The local data of a job; None where its data is a dataset of the service or a built-in one.

    A relative path begins at the folder of the job file. Raises BadFile where nothing is there.
    """
    data = spec.get("data")
    if isinstance(data, str):
        return _source(data, {}, job_file)
    if not isinstance(data, dict):
        return None
    if "path" in data:
        rest = {name: value for name, value in data.items() if name not in {"path", "name"}}
        return _source(str(data["path"]), rest, job_file)
    if data.get("name") == "dataset" and is_path(dataset := data.get("dataset")):
        rest = {name: value for name, value in data.items() if name not in {"dataset", "name"}}
        return _source(str(dataset), rest, job_file)
    return None


def is_path(text: object) -> bool:
    """Whether a dataset is named by a path: it begins with ., / or ~. Names of datasets do not."""
    return isinstance(text, str) and text.startswith((".", "/", "~"))


def _source(text: str, rest: Mapping[str, Any], job_file: str) -> LocalSource:
    folder = Path() if job_file == "-" else Path(job_file).parent
    path = folder / os.path.expanduser(text)  # noqa: PTH111 - an absolute path replaces the folder
    if not text or not path.exists():
        hint = "" if is_path(text) or "." in text else f"; a built-in dataset is {{name: {text or 'digits'}}}"
        raise BadFile(f"{job_file}: data: there is no file or folder {path if text else repr(text)}{hint}")
    if not (path.is_file() or path.is_dir()):
        raise BadFile(f"{job_file}: data: {path} is neither a file nor a folder")
    described = {name: rest[name] for name in UPLOAD_FIELDS if name in rest}
    fields = {name: value for name, value in rest.items() if name not in UPLOAD_FIELDS}
    return LocalSource(path, **described, fields=fields)
