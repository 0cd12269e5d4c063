"""The pictures of an assembled landscape are those of a landscape."""

from worker.pictures.landscape import draw_figures

__all__ = ["draw_figures"]
