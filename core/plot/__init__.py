"""Pictures of curves, as SVG that we write ourselves: data in, text out, from the standard library alone.

`chart` says what to draw, `draw` puts it together; one idea to each of the other files.
"""
