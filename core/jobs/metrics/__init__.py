"""Series of numbers: column chunks, downsampling, comparison of jobs."""
