"""Basin's Python client: `Client` calls the service from Python, `basin` from the command line."""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from basin.client import Client
    from basin.errors import BasinError, Problem, Unreachable
    from basin.shapes import Checkpoint, Event, Job, Series

__all__ = ["BasinError", "Checkpoint", "Client", "Event", "Job", "Problem", "Series", "Unreachable"]

HOMES = {"Client": "client", "Checkpoint": "shapes", "Event": "shapes", "Job": "shapes", "Series": "shapes"}


def __getattr__(name: str) -> Any:
    """Imports the public names on first use: their libraries take 0.2 s to import, and `basin --help` needs none."""
    if name == "__version__":
        return metadata.version("basin")
    if name not in __all__:
        raise AttributeError(f"module 'basin' has no attribute {name!r}")
    return getattr(import_module(f"basin.{HOMES.get(name, 'errors')}"), name)
