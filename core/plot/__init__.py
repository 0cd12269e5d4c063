"""Pictures of curves as SVG text, with the standard library alone.

`chart` describes what to draw; `draw` lays it out and renders it; each other module draws one part.
"""
