"""Options and arguments of several commands."""

from enum import StrEnum
from typing import Annotated

import typer


class Output(StrEnum):
    """The output format of answers."""

    TABLE = "table"
    JSON = "json"


Url = Annotated[
    str | None,
    typer.Option("--url", envvar="BASIN_URL", help="The URL of the service; default: http://127.0.0.1:8000."),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", envvar="BASIN_API_KEY", show_default=False, help="The service's API key, if it asks for one."
    ),
]
As = Annotated[Output, typer.Option("--output", "-o", help="A table for people, or JSON for programs.")]
JobFile = Annotated[str, typer.Argument(metavar="JOB.YAML", help="YAML or JSON; '-' reads standard input.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="As in job_01…")]
Pinned = Annotated[list[str], typer.Argument(metavar="CHECKPOINT...", help="As in ckpt_01…")]
Pairs = Annotated[list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="As in team=vision.")]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As in optimizer.lr=0.01.")]
