"""The contract that a plug-in must keep, for its own tests: functions that raise AssertionError, whatever runs them.

It needs torch, so it is for tests alone.
"""

from core.testing.dataset import check_dataset
from core.testing.loss import check_loss
from core.testing.metric import check_metric
from core.testing.model import check_model
from core.testing.optimizer import check_optimizer
from core.testing.schedule import check_schedule

__all__ = ["check_dataset", "check_loss", "check_metric", "check_model", "check_optimizer", "check_schedule"]
