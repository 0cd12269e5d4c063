"""`python -m api`: what `basin api` does."""

import typer

from api.commands import api

typer.run(api)
