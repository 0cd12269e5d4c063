"""The ledger check: whether everything that is written down fits together, read from a live system.

Plain reads in pages, so that it takes little memory and stands in nobody's way. `rules.py` and `timeline.py` say what
must hold of a job, `page.py` and `chunks.py` read it, `objects.py` looks into the store, `check.py` goes through all.
"""
