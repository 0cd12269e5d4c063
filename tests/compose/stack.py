"""The compose stack from nothing to nothing: docs/compose.md, and then everything that may happen to it.

python3 tests/compose/stack.py [ROUNDS]      needs a running Docker engine, Compose, curl, and nothing else
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.compose.docker import PROJECT, Stack, run, tell, until
from tests.compose.own_data import train_on_upload

API_MEGABYTES = 300
CAPABILITIES = {
    "postgres": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"},
    "worker": {"KILL", "SETGID", "SETUID"},
}
IMAGES = ("api", "worker")
JOB = {
    "name": "digits-swa",
    "model": {"name": "mlp", "hidden": [128, 128]},
    "data": {"name": "digits", "validation": 0.1, "test": 0.2, "split_seed": 0},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "schedule": {"name": "cosine", "warmup": "1ep"},
    "swa": True,
    "epochs": 2400,
    "checkpoints": {"every": "100ep"},
    "evaluate": {"every": "100ep"},
    "log_every": 100,
    "seed": 0,
}
SMALL = {"model": {"name": "logistic"}, "data": {"name": "iris"}, "optimizer": {"name": "adam"}, "epochs": 20}
OVER = {"succeeded", "failed", "cancelled"}


def build(stack: Stack) -> None:
    stack.compose("build")
    api, worker = (own_megabytes(f"basin-{one}") for one in IMAGES)
    assert api < API_MEGABYTES, f"the api is {api:.0f} MB above its base"
    look = 'from importlib.util import find_spec; print(find_spec("torch") is not None)'
    has_torch = [
        run("docker", "run", "--rm", "--entrypoint", "python", f"basin-{one}", "-Ic", look).strip() for one in IMAGES
    ]
    assert has_torch == ["False", "True"], f"PyTorch in {IMAGES}: {has_torch}"
    tell(f"built: the api is {api:.0f} MB above its base image, the worker {worker:.0f} MB")


def own_megabytes(image: str) -> float:
    """What an image adds to its base: its layers from our first instruction on, newest first in its history."""
    lines = run("docker", "history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image)
    total = 0
    for line in lines.splitlines():
        size, _, made_by = line.partition(" ")
        total += int(size)
        if "PATH=/opt/basin/bin" in made_by:
            return total / 1e6
    raise AssertionError("the Dockerfile's first instruction is not in the history")


def start(stack: Stack) -> None:
    refusal = stack.refuses_without_env()
    assert "make compose-env" in refusal, refusal
    tell(f"without .env: {refusal}")
    stack.present(stack.compose("run", "--rm", "-T", "api", "key", "create", "--name", "compose-test").strip())
    stack.compose("up", "--detach", "--wait", "--wait-timeout", "120")
    stack.forgets = stack.bucket("--head") == "404"
    if stack.forgets:
        give_bucket(stack)
    wait_until_ready(stack)
    tell(f"up and ready: {', '.join(sorted(stack.containers()))}")


def wait_until_ready(stack: Stack) -> None:
    until("everything is ready", lambda: stack.get("/readyz")["status"] == "ready", 30)


def give_bucket(stack: Stack) -> None:
    """What stands for SeaweedFS made no bucket: the others started without, and must come right by themselves."""
    until("only the store is away", lambda: stack.get("/readyz")["degraded"] == ["store"], 30)
    job = submit(stack, SMALL)
    until("the worker misses the store", lambda: "no claim: the store is away" in stack.compose("logs", "worker"), 30)
    assert stack.bucket("--request", "PUT") == "200"
    finished(stack, f"/v1/jobs/{job}", 60)
    tell("the store had no bucket: the api said so and a job waited; all went on when it had one")


def check_walls(stack: Stack) -> None:
    """What docker-compose.yml asks for is what the engine did."""
    for service, container in stack.containers().items():
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"], f"{service}: its root file system can be written"
        assert host["CapDrop"] == ["ALL"], f"{service}: has capabilities"
        added = {name.removeprefix("CAP_") for name in host["CapAdd"] or ()}
        assert added == CAPABILITIES.get(service, set()), f"{service}: may {added}"
        assert "no-new-privileges:true" in host["SecurityOpt"], f"{service}: may gain privileges"
        assert all(host[limit] > 0 for limit in ("Memory", "NanoCpus", "PidsLimit")), f"{service}: has no limits"
        volumes = [one["Name"] for one in container["Mounts"] if one["Type"] == "volume"]
        assert all(name.startswith(f"{PROJECT}_") for name in volumes), f"{service}: writes on {volumes}"
        ports = {name: list(bound) for name, bound in (host["PortBindings"] or {}).items()}
        expected = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]} if service == "api" else {}
        assert ports == expected, f"{service}: publishes {ports}"
        if container["State"]["Running"]:
            assert "0" not in stack.users(container), f"{service}: something runs as root"
    answer = subprocess.run(
        ["curl", "--silent", "--write-out", "%{http_code}", "--output", "/dev/null", f"{stack.url}/v1/jobs"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "401", f"without a key: {answer.stdout}"
    tell("nothing runs as root, root file systems are read-only, limits hold; only the api is published; no key: 401")


def check_secrets(stack: Stack) -> None:
    """Docker's engine does not tell the passwords, and the service's role may do nothing beside its own database."""
    secrets = stack.secrets()
    assert len(secrets) == 5, "of PostgreSQL two, of Redis one, of the store two"
    for service, container in stack.containers().items():
        told = json.dumps(container)
        assert not [secret for secret in secrets if secret in told], f"docker inspect tells a password of {service}"
    powers = "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles"
    found = stack.query(f"{powers} WHERE rolname = 'basin_service'")
    assert found == "f|f|f|f|f", f"{powers}: {found}"
    from_elsewhere = "SELECT DISTINCT usename FROM pg_stat_activity WHERE client_addr IS NOT NULL"
    assert stack.query(from_elsewhere) == "basin_service", "the service works as somebody else"
    assert stack.query("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == "basin_service"
    tell("docker inspect tells no password; the service's role is no superuser, and owns its database alone")


def check_runners(stack: Stack) -> None:
    """What computes for others has a user of its own, to whom the worker and its secrets are closed."""
    assert stack.users(stack.containers()["worker"]) == {"10001", "10002"}
    main, zygote = (pid_of(stack, command) for command in ("basin worker ", "-m worker.zygote "))
    url = "cat /etc/basin/database-url"
    assert "basin_service" in stack.inside("worker", "basin", url).stdout, "nothing that a runner could read"
    assert stack.inside("worker", "basin-runner", f"grep -q OPENBLAS /proc/{zygote}/environ").returncode == 0
    for closed in (url, "ls /etc/basin", "ls /var/lib/basin", f"cat /proc/{main}/environ", f"ls /proc/{main}/fd"):
        done = stack.inside("worker", "basin-runner", closed)
        assert done.returncode != 0, f"a runner can {closed}"
        assert done.stdout == "", f"a runner can {closed}"
    for signal in ("0", "KILL"):
        assert stack.inside("worker", "basin-runner", f"kill -{signal} {main}").returncode != 0, "a runner kills"
    held = stack.inside("worker", "basin-runner", f"grep -E 'Cap(Prm|Eff|Amb)' /proc/{zygote}/status").stdout
    assert {line.split()[1] for line in held.splitlines()} == {"0" * 16}, held
    tell("runners have a user of their own and no capability; they read no secret of the worker and cannot signal it")


def pid_of(stack: Stack, command: str) -> int:
    """Our own process in the worker's container that was started by this command."""
    listing = "for one in /proc/[0-9]*; do echo ${one#/proc/} $(tr '\\0' ' ' < $one/cmdline); done"
    lines = [line.split(None, 2) for line in stack.inside("worker", "basin", listing).stdout.splitlines()]
    (found,) = (int(pid) for pid, *said in lines if said[:1] == ["/opt/basin/bin/python"] and command in said[1])
    return found


def posted(stack: Stack, path: str, body: dict[str, Any]) -> str:
    """The id of what was made."""
    text = stack.curl(path, "--header", "Content-Type: application/json", "--data", "@-", told=json.dumps(body))
    return str(json.loads(text)["id"])


def submit(stack: Stack, body: dict[str, Any]) -> str:
    return posted(stack, "/v1/jobs", body)


def submitted_and_finished(stack: Stack) -> str:
    """A small job that is over."""
    job = submit(stack, SMALL)
    finished(stack, f"/v1/jobs/{job}", 60)
    return job


def follow(stack: Stack, job: str) -> list[tuple[str, dict[str, Any]]]:
    """The job's events from its stream, until the stream ends: (type, data)."""
    text = stack.curl(
        f"/v1/jobs/{job}/events", "--no-buffer", "--max-time", "300", "--header", "Accept: text/event-stream"
    )
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            events.append((fields["event"], json.loads(fields["data"])["data"]))
    return events


def finished(stack: Stack, path: str, seconds: float = 300) -> dict[str, Any]:
    """The job or analysis when it has succeeded."""

    def look() -> dict[str, Any] | None:
        found = stack.get(path)
        return found if found["status"] in OVER else None

    found = until(f"{path} ends", look, seconds)
    assert found["status"] == "succeeded", found
    return found


def weights(stack: Stack, job: str) -> str:
    """The digest of the averaged weights: downloaded, and equal to what the service says."""
    (row,) = [one for one in stack.get(f"/v1/jobs/{job}/checkpoints")["data"] if one["kind"] == "swa"]
    file = stack.env.with_name("swa.safetensors")
    stack.curl(f"/v1/checkpoints/{row['id']}/content", "--output", str(file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (digest, file.stat().st_size) == (row["sha256"], row["bytes"]), "what was downloaded is something else"
    return digest


def train(stack: Stack) -> str:
    """An undisturbed job; the digest of its weights."""
    job = submit(stack, JOB)
    events = follow(stack, job)
    kinds = {kind for kind, _ in events}
    assert {"status", "checkpoint", "metrics"} <= kinds, kinds
    statuses = [data["status"] for kind, data in events if kind == "status"]
    assert statuses[-1] == "succeeded", statuses
    accuracy = finished(stack, f"/v1/jobs/{job}")["results"]["swa"]["test"]["accuracy"]
    digest = weights(stack, job)
    tell(f"submitted and followed: {len(events)} events, {' > '.join(statuses)}; test accuracy {accuracy:.4f}")
    tell(f"downloaded: sha256 {digest}")
    return digest


def under_way(stack: Stack, job: str) -> bool:
    """Whether it runs and has a checkpoint to go on from, with much left to do."""
    found = stack.get(f"/v1/jobs/{job}")
    assert found["status"] not in OVER, "it was over before anything could happen to it; make it longer"
    saved = any(one["kind"] == "last" for one in stack.get(f"/v1/jobs/{job}/checkpoints")["data"])
    return bool(found["status"] == "running" and saved)


def analyse(stack: Stack) -> None:
    """A landscape around the weights of a job: its numbers, its arrays, and its pictures, which need matplotlib."""
    body = {"kind": "landscape", "job": submitted_and_finished(stack), "steps": 11, "splits": ["train"]}
    path = f"/v1/analyses/{posted(stack, '/v1/analyses', body)}"
    found = finished(stack, path, 120)
    assert found["results"]["computed"] == 121, found["results"]
    files = {}
    for name in ("contours.svg", "contours.png"):
        files[name] = stack.env.with_name(name)
        stack.curl(found["pictures"][name], "--output", str(files[name]))
    assert "<svg" in files["contours.svg"].read_text()
    assert files["contours.png"].read_bytes().startswith(b"\x89PNG")
    arrays = stack.env.with_name("arrays.npz")
    stack.curl(f"{path}/content", "--output", str(arrays))
    assert arrays.read_bytes().startswith(b"PK")
    tell(f"analysed: a landscape with {len(found['pictures'])} pictures, {', '.join(sorted(found['pictures']))}")


def crash_worker(stack: Stack, digest: str) -> None:
    """Everything in the container dies but its init, in the middle of a job; nobody starts it again but Docker."""
    job = submit(stack, JOB)
    until("the job is under way", lambda: under_way(stack, job), 120)
    at = stack.get(f"/v1/jobs/{job}")["progress"]["step"]
    before = stack.containers()["worker"]["RestartCount"]
    stack.inside("worker", "root", "kill -KILL -1")

    def again() -> bool:
        found = stack.containers()["worker"]
        return bool(found["RestartCount"] > before and found["State"]["Health"]["Status"] == "healthy")

    until("the worker is there again", again, 60)
    attempts = finished(stack, f"/v1/jobs/{job}")["attempt"]
    assert attempts == 2, attempts
    assert weights(stack, job) == digest, "other weights than those of the undisturbed job"
    tell(f"worker died at step {at} and was started again by Docker: attempt 2 finished the job, the same to the bit")


def kill_worker(stack: Stack) -> None:
    """`docker kill` is somebody's wish, not a death: the restart policy lets it be, as docs/compose.md says."""
    stack.compose("kill", "worker")
    assert not stack.containers()["worker"]["State"]["Running"]
    job = submit(stack, SMALL)
    stack.compose("up", "--detach", "--wait", "worker")
    assert stack.containers()["worker"]["RestartCount"] == 0, "not `up` started it, which begins to count anew"
    finished(stack, f"/v1/jobs/{job}", 60)
    tell("worker killed by `docker compose kill`: it stayed down until `docker compose up`, and works")


class Load(threading.Thread):
    """Submits small jobs one after the other, as a client would: the same request again until it is answered."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(name="load")
        self.stack, self.stopping = stack, threading.Event()
        self.accepted: list[str] = []
        self.refused = 0

    def run(self) -> None:
        while not self.stopping.wait(0.05):
            number = len(self.accepted)
            body = SMALL | {"seed": number}
            headers = ("--header", "Content-Type: application/json", "--header", f"Idempotency-Key: load-{number}")
            try:
                told = self.stack.curl("/v1/jobs", *headers, "--max-time", "30", "--data", "@-", told=json.dumps(body))
            except AssertionError:
                self.refused += 1
            else:
                self.accepted.append(json.loads(told)["id"])


def restart_servers(stack: Stack, digest: str) -> None:
    """PostgreSQL and Redis go and come back while jobs train and more arrive."""
    job = submit(stack, JOB)
    load = Load(stack)
    load.start()
    until("the job is under way", lambda: under_way(stack, job), 120)
    for service in ("redis", "postgres"):
        before = len(load.accepted)
        stack.compose("restart", service)
        until(f"jobs are accepted after {service} restarted", lambda: len(load.accepted) > before + 3, 60)  # noqa: B023
    load.stopping.set()
    load.join()
    assert finished(stack, f"/v1/jobs/{job}")["attempt"] == 1, "the training was disturbed"
    assert weights(stack, job) == digest, "other weights than those of the undisturbed job"
    assert len(set(load.accepted)) == len(load.accepted)
    for one in load.accepted:
        finished(stack, f"/v1/jobs/{one}")
    tell(
        f"Redis and PostgreSQL restarted under load: {len(load.accepted)} jobs accepted, all succeeded; "
        f"{load.refused} requests sent again; the long job never stopped"
    )


def stop_and_return(stack: Stack) -> None:
    """Everything ends when it is asked to, not because it is killed; what the volumes hold is there afterwards."""
    job = submitted_and_finished(stack)
    if stack.forgets:
        stack.copy_objects("out")
    stack.compose("stop")
    codes = {name: found["State"]["ExitCode"] for name, found in stack.containers().items()}
    assert {name for name, code in codes.items() if code} <= {"objects"}, f"ended with {codes}"
    assert codes["objects"] in {0, 143}, "the store was killed"
    stack.compose("down")
    stack.compose("up", "--detach", "--wait", "--wait-timeout", "120")
    if stack.forgets:
        assert stack.bucket("--request", "PUT") == "200"
        assert stack.get("/readyz")["degraded"] == ["store"], "an empty bucket was taken for the store"
        stack.copy_objects("back")
    wait_until_ready(stack)
    assert finished(stack, f"/v1/jobs/{job}")["id"] == job
    submitted_and_finished(stack)
    tell("stopped: every container ended by itself; down and up again: key and jobs are there, and it works")


def one_round(folder: Path) -> None:
    stack = Stack(folder)
    stack.down()
    try:
        build(stack)
        start(stack)
        check_walls(stack)
        check_secrets(stack)
        check_runners(stack)
        digest = train(stack)
        train_on_upload(stack)
        analyse(stack)
        crash_worker(stack, digest)
        kill_worker(stack)
        restart_servers(stack, digest)
        stop_and_return(stack)
    except BaseException:
        tell(stack.logs())
        raise
    finally:
        stack.down()
    tell("down: no container, volume or network is left")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    for number in range(1, rounds + 1):
        started = time.monotonic()
        tell(f"round {number} of {rounds}")
        with tempfile.TemporaryDirectory() as folder:
            one_round(Path(folder))
        tell(f"round {number} passed in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
