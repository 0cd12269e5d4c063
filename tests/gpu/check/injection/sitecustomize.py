"""Python imports this at its start, where PYTHONPATH leads here: a zygote of the check then has faults to offer."""

import sys

if "worker.zygote" in sys.orig_argv:
    from tests.gpu.check.injected import install

    install()
