"""Analyses of existing weights: landscapes, sharpness, paths, noise. Every kind is a module with two functions.

`compute_tensors(spec, subjects, desk)` computes tensors, tile by tile; `desk.found` are those of an earlier attempt.
`report_numbers(spec, subjects, tensors)` derives the numbers of the result, as JSON, also from tensors that are partly
computed: NaN is not computed.
"""
