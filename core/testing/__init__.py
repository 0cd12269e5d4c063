"""The contract that a plug-in must keep, for its own tests: functions that raise AssertionError, whatever runs them.

It needs torch, so it is for tests alone.
"""

from core.testing.datasets import check_dataset
from core.testing.models import check_model
from core.testing.optimizers import check_optimizer
from core.testing.schedules import check_schedule

__all__ = ["check_dataset", "check_model", "check_optimizer", "check_schedule"]
