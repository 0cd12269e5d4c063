"""A landscape that was put together looks as one that was computed in one go."""

from worker.pictures.landscape import figures

__all__ = ["figures"]
