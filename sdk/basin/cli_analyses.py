"""The commands for analyses."""

from typing import Annotated

import typer

from basin.options import As, Changes, Key, Output, Url


def analyze(  # noqa: PLR0913 - a command's options
    *,
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB[:WEIGHTS]|CHECKPOINT...", help="As in job_01…, job_01…:swa, ckpt_01…; parts of a landscape"
        ),
    ],
    kind: Annotated[str, typer.Option("--kind", "-k", help="landscape, sharpness, interpolation …")],
    changes: Changes = None,
    share: Annotated[
        int | None, typer.Option(min=2, max=64, help="The number of parts of a landscape, for several workers.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="For pictures and arrays; default: a folder named by the id.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end, and save the files.")] = True,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """Analyze weights: their loss landscape, their sharpness, the loss on a path between them.

    As in: basin analyze JOB --kind landscape --set steps=51

    With --share 4 a landscape is computed in four parts, by up to four workers at a time, and then assembled.
    """
    from basin import analyses
    from basin.session import CliSession

    session = CliSession(url, output is Output.JSON, key)
    request = analyses.analysis_request(what, kind, changes or ())
    if share:
        from basin import sharded_landscape

        raise typer.Exit(sharded_landscape.analyze_in_parts(session, request, share, to=to, wait=wait))
    raise typer.Exit(analyses.request_analysis(session, request, to=to, wait=wait))


def analyses(
    *,
    job: Annotated[str | None, typer.Option(help="Only analyses of this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    url: Url = None,
    key: Key = None,
    output: As = Output.TABLE,
) -> None:
    """List your analyses."""
    from basin import analyses
    from basin.session import CliSession

    raise typer.Exit(analyses.list_analyses(CliSession(url, output is Output.JSON, key), job, limit))
