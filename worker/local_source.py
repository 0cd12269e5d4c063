"""The data of a job file that are a path on this machine: prepared here, printed, and looked up by the job."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from basin.data_files import LocalSource, find_local_source
from basin.dataset_output import TransferProgress, print_understood, raise_if_unusable
from basin.datasets import dataset_name
from basin.shapes import Column, DatasetError
from basin.shapes import Dataset as DatasetAnswer
from core.errors import FieldProblem, InvalidSpec
from core.recipe.data import Dataset, DataSpec
from core.recipe.data.columns import show_name
from core.recipe.data.manifest import ColumnFacts, DatasetManifest
from core.recipe.data.resolve import resolve_dataset
from core.recipe.prepare import PrepareSpec
from core.recipe.validation_errors import field_problems
from core.settings import Settings
from worker.datasets.local import FileRefused
from worker.datasets.local_cache import held_local, source_bytes

NO_ID: Final = f"ds_{'0' * 26}"
"""The dataset of a spec whose content is no row of a database."""


class LocalSourceReader(ExitStack):
    """The look-up of a job's data for `basin run`. What it prepares stays until the context ends."""

    def __init__(self, document: Mapping[str, Any], job_file: str, settings: Settings) -> None:
        """Raises BadFile where the data of the job are a path and nothing is there."""
        super().__init__()
        self._source = find_local_source(document, job_file)
        self._settings = settings
        self._name = (dataset_name(self._source.filename) or "data")[:200] if self._source else ""
        self.document = dict(document) | ({"data": self._source.as_data(self._name)} if self._source else {})
        """The job, with the name of a dataset in place of the path."""
        self.prepared: Path | None = None
        """The folder of the prepared data, once they are looked up."""

    def resolve(self, data: DataSpec) -> DataSpec:
        """The data, prepared and resolved; what was understood is printed to stderr.

        Raises:
            InvalidSpec: the data does not fit the file, or names a dataset of a service.
            RefusedData: the file cannot be used; the message has every reason.
            PrepareFailed: this machine failed.
            OSError: the file cannot be read, or the disk does not take the result.
        """
        if not isinstance(data, Dataset):
            return data
        if self._source is None:
            message = f"there is no service here that could have the dataset {show_name(data.dataset)}"
            raise InvalidSpec(errors=(FieldProblem("/data/dataset", message, "name a file, as in ./train.csv"),))
        manifest = self._prepare(self._source)
        return resolve_dataset(data, self._name, manifest)

    def _prepare(self, source: LocalSource) -> DatasetManifest:
        spec, total = read_prepare_spec(source), source_bytes(source.path)
        try:
            with TransferProgress() as bar:
                self.prepared, manifest = self.enter_context(
                    held_local(
                        source.path,
                        spec,
                        self._settings,
                        on_read=lambda done: bar.report_hash(done, max(done, total)),
                        on_progress=lambda fields: bar.report_prepared(fields.get("fraction")),
                    )
                )
        except FileRefused as error:
            raise_if_unusable(refused_answer(source.filename, error.problems))
            raise
        print_understood(describe_manifest(source.filename, manifest))
        return manifest


def read_prepare_spec(source: LocalSource) -> PrepareSpec:
    """How the file is read. Raises InvalidSpec for wrong options, with pointers below /data."""
    document = {
        "dataset": NO_ID,
        "format": source.format,
        "options": source.options,
        "filename": source.filename[-200:],
    }
    try:
        return PrepareSpec.model_validate_json(json.dumps(document))
    except ValidationError as error:
        found = field_problems(error, document, PrepareSpec)
        problems = tuple(FieldProblem(f"/data{each.pointer}", each.message, each.hint) for each in found)
        raise InvalidSpec(errors=problems) from None


def refused_answer(name: str, problems: Any) -> DatasetAnswer:
    """What the client would have received of a refused file."""
    errors = tuple(DatasetError.read(dict(each)) for each in problems)
    return DatasetAnswer(id="", name=name, status="refused", errors=errors)


def describe_manifest(name: str, manifest: DatasetManifest) -> DatasetAnswer:
    """What the client would have received of a prepared file."""
    return DatasetAnswer(
        id="",
        name=name,
        status="ready",
        format=manifest.format,
        kind=manifest.kind,
        examples=manifest.examples,
        columns=tuple(_describe_column(column) for column in manifest.columns),
        classes=dict(zip(manifest.classes or (), manifest.class_counts or (), strict=False)),
        warnings=manifest.warnings,
    )


def _describe_column(column: ColumnFacts) -> Column:
    return Column(
        name=column.name,
        kind=column.kind,
        missing=column.missing,
        classes=None if column.categories is None else len(column.categories),
        min=column.minimum,
        max=column.maximum,
        mean=column.mean,
    )
