"""What the commands of `basin data` do, and the upload of local data in a job file."""

from collections.abc import Mapping, Sequence
from typing import Any

from basin import dataset_output, terminal_output
from basin.client import Client
from basin.data_files import find_local_source
from basin.dataset_output import TransferProgress
from basin.errors import BasinError
from basin.session import CliSession
from basin.shapes import Dataset


def add_dataset(session: CliSession, path: str, name: str | None, format_: str, options: Mapping[str, Any]) -> int:
    """Uploads a file or folder and prints what was understood. Returns the exit code: 1 where it was refused."""
    with session.open_client() as client:
        dataset = upload(client, path, name, format_, options)
    session.print_answer(dataset.raw(), lambda: dataset_output.print_dataset(dataset))
    return 0 if dataset.status == "ready" else 1


def upload(client: Client, path: str, name: str | None, format_: str, options: Mapping[str, Any]) -> Dataset:
    """Uploads with a bar on the terminal. Returns the dataset when it is prepared or refused."""
    with TransferProgress() as bar:
        return client.data.add(
            path,
            name=name,
            format=format_,
            options=options,
            on_hash=bar.report_hash,
            on_upload=bar.report_upload,
            on_change=bar.report_dataset,
        )


def with_uploaded_data(client: Client, spec: dict[str, Any], job_file: str) -> dict[str, Any]:
    """The spec with the id of a dataset in place of a local path; unchanged where it has none.

    What was understood is printed to stderr. Raises RefusedData where the service refuses the file.
    """
    source = find_local_source(spec, job_file)
    if source is None:
        return spec
    dataset = upload(client, str(source.path), None, source.format, source.options)
    dataset_output.raise_if_unusable(dataset)
    dataset_output.print_understood(dataset)
    return {**spec, "data": source.as_data(dataset.id)}


def list_datasets(session: CliSession, name: str | None, status: str | None, after: str | None, limit: int) -> int:
    with session.open_client() as client:
        page = client.data.list(name=name, status=status, after=after, limit=limit)
    return session.print_answer(page.raw(), lambda: dataset_output.print_datasets(page))


def show_dataset(session: CliSession, dataset: str) -> int:
    with session.open_client() as client:
        found = client.data.find(dataset)
    return session.print_answer(found.raw(), lambda: dataset_output.print_dataset(found))


def show_rows(session: CliSession, dataset: str, limit: int) -> int:
    with session.open_client() as client:
        found = client.data.find(dataset)
        rows = client.data.rows(found.id, limit)
    names = [column.name for column in found.columns]
    return session.print_answer({"data": rows}, lambda: dataset_output.print_rows(rows, names))


def delete_datasets(session: CliSession, datasets: Sequence[str]) -> int:
    """Deletes each of them. Returns the exit code: 1 where one was not deleted."""
    code = 0
    with session.open_client() as client:
        for dataset in datasets:
            try:
                client.data.delete(client.data.find(dataset).id)
                terminal_output.print_lines(f"{dataset} is deleted.")
            except BasinError as error:
                terminal_output.print_error(error)
                code = 1
    return code
