"""The folder of a local store goes away under a service, in several ways after each other, and comes back."""

from collections.abc import Callable

from tests.faults.conftest import Truth
from tests.support.service import Service, until

Check = Callable[..., None]
REFUSED = "no claim: the store is away"


def test_a_folder_that_goes_away_costs_nothing(
    either_service: Service, same_as_undisturbed: Check, truth: Truth
) -> None:
    """A paused job that is resumed meanwhile waits: this cost it every checkpoint, and it began again at step 0."""
    service = either_service
    job_id = service.submit(truth.spec)
    service.when_at(job_id, truth.steps // 3)
    assert service.http.post(f"/v1/jobs/{job_id}/pause").status_code == 202
    service.when(job_id, lambda job: job["status"] == "paused")
    kept, root, aside = service.checkpoints(job_id), service.home / "store", service.home / "aside"
    assert kept

    def tried_in_vain() -> None:
        before = service.worker.said.count(REFUSED)

        def refused() -> bool:
            job = service.job(job_id)
            assert (job["status"], job["attempt"], service.checkpoints(job_id)) == ("queued", 1, kept)
            return service.worker.said.count(REFUSED) > before + 1

        until("a claim was refused", refused)

    root.rename(aside)
    assert service.http.post(f"/v1/jobs/{job_id}/resume").status_code == 202
    service.when(job_id, lambda job: job["status"] == "queued")
    tried_in_vain()
    root.mkdir()
    tried_in_vain()
    assert list(root.iterdir()) == []
    ready = service.http.get("/readyz")
    assert (ready.status_code, "store" in ready.json()["degraded"]) == (200, True)
    assert "was made with" in ready.json()["checks"]["store"]["detail"]
    assert service.http.get(f"/v1/checkpoints/{kept[-1]['id']}/content").status_code == 503
    root.rmdir()
    root.write_bytes(b"")
    tried_in_vain()
    root.unlink()
    aside.rename(root)
    same_as_undisturbed(service, job_id)
    begun = [entry["detail"] for entry in service.job(job_id)["timeline"] if entry["status"] == "running"]
    assert begun[-1].endswith(f"from step {kept[-1]['step']}")
