"""A landscape that was put together looks as one that was computed in one go."""

from worker.pictures.landscape import draw_figures

__all__ = ["draw_figures"]
