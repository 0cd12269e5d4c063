"""The ledger check: whether the rows and objects of the service are consistent, read from a live system.

It only reads, page by page, so that it takes little memory and blocks no writer. `rules.py` and `timeline.py` define
what must hold of a job, `page.py` and `chunks.py` read it, `objects.py` reads the store, `check.py` goes through all.
"""
