"""Analyses of existing weights: landscapes, sharpness, paths, noise. Every kind is a module with two functions.

`compute_tensors(spec, subjects, analysis_progress)` computes tensors, tile by tile; `analysis_progress.found` are
those of an earlier attempt.
`report_numbers(spec, subjects, tensors)` derives the numbers of the result, as JSON, also from tensors that are partly
computed: NaN is not computed.
"""
