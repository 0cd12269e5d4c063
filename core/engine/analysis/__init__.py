"""Looking at weights that exist: landscapes, flatness, paths, noise. Every kind is a module with two functions.

`explore(spec, subjects, desk)` computes tensors, tile by tile; `desk.found` holds what a former attempt had.
`report(spec, subjects, tensors)` says what they mean, as JSON; also of a part of them, where NaN was not computed.
"""
