"""The split of a job over HTTP."""

import pytest
import torch
from fastapi.testclient import TestClient

from api.dependencies import Service
from core.engine.datasets.splitting import SplitIndices, encode_split
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.heartbeat import report_start
from core.jobs.queue.submit import create_job
from tests.api.test_jobs import taken
from tests.support.jobs import small_spec


@pytest.fixture
def fence(service: Service) -> Fence:
    """A running job of ours."""
    create_job(service.db, small_spec(), owner="local")
    return taken(service)


def test_rows_of_each_part(client: TestClient, service: Service, fence: Fence) -> None:
    rows = SplitIndices(torch.tensor([0, 2, 3]), torch.tensor([1]), torch.tensor([4]))
    report_start(service.db, fence, environment={}, split=encode_split(rows))
    answer = client.get(f"/v1/jobs/{fence.job_id}/split")
    assert answer.status_code == 200
    assert answer.json() == {
        "job": fence.job_id,
        "object": "split",
        "train": [0, 2, 3],
        "validation": [1],
        "test": [4],
    }


def test_a_job_that_has_not_started_has_none(client: TestClient, fence: Fence) -> None:
    answer = client.get(f"/v1/jobs/{fence.job_id}/split")
    assert (answer.status_code, answer.json()["code"]) == (409, "split_unknown")
    assert client.get(f"/v1/jobs/job_{'0' * 26}/split").status_code == 404
