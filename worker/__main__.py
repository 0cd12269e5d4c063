"""`python -m worker`: what `basin worker` does."""

import typer

from worker.commands import worker

typer.run(worker)
