"""The commands of `basin data`."""

from typing import Annotated

import typer

from basin.options import As, Key, Output, Url

data = typer.Typer(help="Upload data and look at what was understood.", no_args_is_help=True, rich_markup_mode=None)
DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="An id (ds_01…) or a name: its newest dataset.")]


@data.command("add")
def add_data(  # noqa: PLR0913 - a command's options
    *,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file, or a folder of images by class.")],
    name: Annotated[str | None, typer.Option(help="Its name; default: that of the file.")] = None,
    format_: Annotated[
        str, typer.Option("--format", help="csv, tsv, jsonl, parquet, npy, npz, safetensors, idx, images or text.")
    ] = "auto",
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="How it is read, as in columns.zip.kind=category."),
    ] = None,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Upload a file or folder. The exit code is 1 when the service refuses it; every reason is printed."""
    from basin import dataset_actions, job_file
    from basin.session import CliSession

    given = job_file.with_changes({}, options or ())
    session = CliSession(url, output is Output.JSON, key)
    raise typer.Exit(dataset_actions.add_dataset(session, path, name, format_, given))


@data.command("list")
def list_data(  # noqa: PLR0913 - a command's options
    *,
    name: Annotated[str | None, typer.Option(help="Only those of this name.")] = None,
    status: Annotated[str | None, typer.Option(help="As in ready or refused.")] = None,
    after: Annotated[str | None, typer.Option(metavar="DATASET", help="The next page: those after this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100)] = 20,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """List datasets, newest first."""
    from basin import dataset_actions
    from basin.session import CliSession

    session = CliSession(url, output is Output.JSON, key)
    raise typer.Exit(dataset_actions.list_datasets(session, name, status, after, limit))


@data.command("show")
def show_data(*, dataset: DatasetName, url: Url = None, key: Key = None, output: As = Output.TABLE) -> None:
    """Show what was understood: columns, classes, missing values, warnings, errors."""
    from basin import dataset_actions
    from basin.session import CliSession

    raise typer.Exit(dataset_actions.show_dataset(CliSession(url, output is Output.JSON, key), dataset))


@data.command("rows")
def show_data_rows(
    *,
    dataset: DatasetName,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=20)] = 10,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Show the first rows as they were read."""
    from basin import dataset_actions
    from basin.session import CliSession

    raise typer.Exit(dataset_actions.show_rows(CliSession(url, output is Output.JSON, key), dataset, limit))


@data.command("delete")
def delete_data(
    *,
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET...")],
    url: Url = None,
    key: Key = None,
) -> None:
    """Delete datasets. One that a job still needs stays."""
    from basin import dataset_actions
    from basin.session import CliSession

    raise typer.Exit(dataset_actions.delete_datasets(CliSession(url, json=False, key=key), datasets))
