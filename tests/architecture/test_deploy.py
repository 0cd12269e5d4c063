"""The images and the compose stack as they are written down; `make compose-test` runs them."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.jobs.health.workers import SlotState, SlotUsage
from tests.architecture import tree
from worker.devices.report import DeviceReport
from worker.health_file import health_text
from worker.slots import plan_slots

DOCKERFILE = (tree.ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (tree.ROOT / "docker-compose.yml").read_text(encoding="utf-8")
STACK: dict[str, Any] = yaml.safe_load(COMPOSE)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
MOVED = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "OBJECTS_ACCESS_KEY", "OBJECTS_SECRET_KEY"}
SERVICE_SECRETS = ["database-url", "broker-url", "objects-access-key", "objects-secret-key"]
ONCE = {"migrate", "role"}  # run at every `up`, and end
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(:[-?][^}]*)?\}")
OUT = SlotState("gpu", "GPU-a", in_service=False, since=0.0, reason="timeout", detail="no answer in 90 s")


def stages() -> dict[str, str]:
    """The Dockerfile's stages by name, in their order."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_walled_in(service: str) -> None:
    """Whoever breaks into one container should find nothing to write on, nothing to become, and nowhere to go."""
    found = SERVICES[service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= set(found["deploy"]["resources"]["limits"])
    assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & set(found)
    assert found["restart"] == ("no" if service in ONCE else "unless-stopped")
    assert "healthcheck" in found or service in ONCE


def test_everything_waits_for_what_it_needs() -> None:
    """A schema that is not there yet, or a server that is still filling its volume, is an error that nobody made."""
    healthy = {"postgres": {"condition": "service_healthy"}}
    ready = healthy | {
        "migrate": {"condition": "service_completed_successfully"},
        "redis": {"condition": "service_healthy"},
        "objects": {"condition": "service_healthy"},
    }
    role = {"role": {"condition": "service_completed_successfully"}}
    expected = {"role": healthy, "migrate": role | healthy, "api": ready, "worker": ready, "worker-gpu": ready}
    assert {name: found["depends_on"] for name, found in SERVICES.items() if "depends_on" in found} == expected


def test_what_must_last_is_on_a_named_volume() -> None:
    """What is written on a volume without a name is lost to the next container, and stays on the disk for good."""
    assert {name: found["volumes"] for name, found in SERVICES.items() if "volumes" in found} == {
        "worker": ["work:/var/lib/basin"],
        "worker-gpu": ["work:/var/lib/basin"],
        "postgres": ["database:/var/lib/postgresql/data", "socket:/var/run/postgresql"],
        "objects": ["objects:/data"],
    }
    assert STACK["volumes"] == {"database": {}, "objects": {}, "socket": {}, "work": {}}


def test_nobody_stands_between_a_stop_and_whom_it_is_for() -> None:
    """PostgreSQL once was killed at every stop: its init was root without the right to signal the user postgres."""
    changes_user = {name for name, found in SERVICES.items() if "SETUID" in found.get("cap_add", ())}
    assert changes_user == {"postgres", "worker", "worker-gpu"}
    for name, found in SERVICES.items():
        assert found["init"] is (name not in changes_user or "KILL" in found["cap_add"]), name


def test_runners_have_a_user_of_their_own() -> None:
    """One user for both, and a runner reads the database's password in the environment of the worker, or kills it."""
    for found in (SERVICES["worker"], SERVICES["worker-gpu"]):
        assert found["user"] == "0:0", "root, to hand on capabilities, and then no more"
        assert found["cap_add"] == ["KILL", "SETGID", "SETUID"]
        program, *options = found["entrypoint"]
        assert (program, options[-2:]) == ("setpriv", ["--", "basin"])
        assert {"--reuid=basin", "--regid=basin", "--init-groups"} < set(options)
        own = {"BASIN_DEVICE_LOCKS", "BASIN_WORKER_STATE"}
        shared = {name: value for name, value in found["environment"].items() if name not in own}
        assert shared == {**STACK["x-settings"], "BASIN_RUNNER_USER": "basin-runner"}
    users = re.findall(r"useradd --uid (\d+) .*?--shell /usr/sbin/nologin ([a-z-]+)", stages()["runtime"], re.DOTALL)
    assert users == [("10001", "basin"), ("10002", "basin-runner")]
    assert "--groups basin-runner" in stages()["runtime"], "the worker reads what its runners write"


def test_only_the_api_is_published_and_only_here() -> None:
    """Docker's published ports pass by the host's firewall: a database on 0.0.0.0 is found within hours."""
    assert {name for name, found in SERVICES.items() if "ports" in found} == {"api"}
    assert [port.split(":")[0] for port in SERVICES["api"]["ports"]] == ["127.0.0.1"]
    assert {name for name, found in SERVICES.items() if found["networks"] != ["inside"]} == {"api"}
    assert STACK["networks"]["inside"] == {"internal": True}


def test_no_password_has_a_default() -> None:
    """A default password is the password of everybody who did not read that line."""
    needed = {name: how for name, how in VARIABLE.findall(COMPOSE) if not how.startswith(":-")}
    assert set(needed) == {"BASIN_SECRETS"}
    assert needed["BASIN_SECRETS"].startswith(":?")
    assert "make compose-env" in needed["BASIN_SECRETS"]
    for name, found in STACK["secrets"].items():
        assert re.fullmatch(rf"\$\{{BASIN_SECRETS:\?[^}}]+\}}/{re.escape(name)}", found["file"]), name


def test_no_password_is_in_an_environment() -> None:
    """Whoever may ask Docker about a container reads its environment, and so does `docker inspect` in a bug report."""
    for service, found in SERVICES.items():
        for name, value in found.get("environment", {}).items():
            secret = re.search("PASSWORD|SECRET|ACCESS_KEY|_URL", name) and name != "BASIN_STORE_URL"
            assert not secret or (name.endswith("_FILE") and value.startswith(("/etc/basin/", "/run/secrets/"))), (
                f"{service}: {name}"
            )
    given = {name: found.get("secrets") for name, found in SERVICES.items()}
    for service in ("api", "migrate", "worker", "worker-gpu"):
        assert given[service] == [{"source": name, "target": f"/etc/basin/{name}"} for name in SERVICE_SECRETS]
    assert re.search(r"install .*--mode 0700 .*/etc/basin$", stages()["runtime"], re.MULTILINE), "runners stay out"
    assert {name for each in SERVICES.values() for name in sources(each)} == set(STACK["secrets"])


def sources(service: dict[str, Any]) -> list[str]:
    """The names of the secrets that it gets."""
    return [one["source"] if isinstance(one, dict) else one for one in service.get("secrets", ())]


def test_the_service_is_no_superuser_of_its_database() -> None:
    """A superuser's SQL reads files and runs programs on the database's machine."""
    assert STACK["configs"] == {"role": {"file": "deploy/postgres/role.sh"}}
    text = (tree.ROOT / STACK["configs"]["role"]["file"]).read_text(encoding="utf-8")
    (options,) = re.findall(r"^ALTER ROLE basin_service (.*)$", text, re.MULTILINE)
    powers = ["NOSUPERUSER", "NOCREATEDB", "NOCREATEROLE", "NOREPLICATION", "NOBYPASSRLS"]
    assert options.split() == ["LOGIN", *powers, "PASSWORD", ":'password';"]
    assert "ALTER DATABASE basin OWNER TO basin_service;" in text
    assert "basin_service" not in COMPOSE
    holders = [name for name, found in SERVICES.items() if "postgres-password" in sources(found)]
    assert sorted(holders) == ["postgres", "role"]


def test_the_role_is_made_at_every_start() -> None:
    """PostgreSQL's image makes roles only when it fills a new volume, which that of an earlier release is not."""
    role = SERVICES["role"]
    assert (role["image"], role["user"]) == (SERVICES["postgres"]["image"], "postgres")
    assert role["entrypoint"] == ["sh", "/role.sh"]
    assert role["configs"] == [{"source": "role", "target": "/role.sh"}]
    superuser = {"PGUSER": "POSTGRES_USER", "PGDATABASE": "POSTGRES_DB"}
    environment = SERVICES["postgres"]["environment"]
    assert role["environment"] == {"PGHOST": "postgres"} | {ours: environment[its] for ours, its in superuser.items()}
    assert sources(role) == ["postgres-password", "service-password"]
    assert "/var/lib/postgresql/data" in role["tmpfs"], "a volume without a name, left behind at every start"


def test_one_pytorch_for_each_kind_of_worker() -> None:
    """A CPU worker should not need gigabytes of CUDA, and a GPU worker is nothing without them."""
    arguments = [SERVICES[name]["build"]["args"]["TORCH_INDEX"] for name in ("worker", "worker-gpu")]
    assert arguments == ["${TORCH_INDEX:-}", "${TORCH_INDEX_GPU:-}"]
    assert re.findall(r"^ARG .*$", DOCKERFILE, re.MULTILINE) == ["ARG TORCH_INDEX="]
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", "all")
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


@pytest.mark.parametrize("gpus", [1, 8])
def test_one_slot_for_each_gpu(gpus: int) -> None:
    """A slot too many and two jobs share a GPU's memory; one too few and a GPU idles."""
    _, *arguments = SERVICES["worker-gpu"]["command"]
    said = dict(zip(arguments[::2], arguments[1::2], strict=True))
    devices = [f"GPU-{index}" for index in range(gpus)]
    reports = [DeviceReport(device, ok=True) for device in devices]
    slots = plan_slots(int(said["--slots"]), said["--queues"].split(","), reports)
    assert [(slot.kind, slot.devices) for slot in slots] == [("gpu", device) for device in devices]


def test_a_gpu_is_booked_once_by_all_containers_of_a_host() -> None:
    """Each container has a /tmp of its own; two workers with all GPUs each would start two jobs on each of them."""
    found = SERVICES["worker-gpu"]
    (volume,) = found["volumes"]
    assert Path(found["environment"]["BASIN_DEVICE_LOCKS"]).is_relative_to(volume.partition(":")[2])
    assert volume.partition(":")[0] in STACK["volumes"]


@pytest.mark.parametrize(
    ("text", "healthy"),
    [
        (health_text({"gpu": SlotUsage(1, 0)}, [OUT], ready=True), True),
        (health_text({"gpu": SlotUsage(0, 0)}, [OUT], ready=True), False),
        (health_text({"gpu": SlotUsage(1, 0)}, [], ready=False), False),
        (None, False),
    ],
    ids=["one of two", "none in service", "no zygote", "not started"],
)
def test_a_worker_without_a_gpu_is_not_healthy(tmp_path: Path, text: str | None, healthy: bool) -> None:
    """It used to be while it could fork, with all its GPUs dead. The check itself, by a shell."""
    found = SERVICES["worker-gpu"]
    state = Path(found["environment"]["BASIN_WORKER_STATE"])
    folder, _, options = next(one for one in found["tmpfs"] if "basin" in one).partition(":")
    assert state.parent == Path(folder), "no other container's, and none of an earlier life of this one"
    assert {"uid=10001", "mode=0755"} <= set(options.split(",")), "the worker writes; root without its powers reads"
    kind, command = found["healthcheck"]["test"]
    assert (kind, "python" in command) == ("CMD-SHELL", False)
    if text is not None:
        (tmp_path / state.name).write_text(text)
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace(folder, str(tmp_path))], capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) is healthy
    assert done.stdout == (text or ""), "the health log says why"


def test_the_stack_starts_on_two_cores() -> None:
    """Docker refuses a container whose limit of cores is above the machine's; 0 is no limit."""
    defaults = {name: found["deploy"]["resources"]["limits"]["cpus"] for name, found in SERVICES.items()}
    numbers = {name: float(re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", value)) for name, value in defaults.items()}
    assert numbers["worker-gpu"] == 0, "it serves as many GPUs as there are"
    assert all(value <= 2 for value in numbers.values())


def test_images_run_as_nobody_in_particular() -> None:
    """The user is a number, so that a cluster's admission rules can see that it is not root."""
    for name in ("api", "worker"):
        assert re.findall(r"^USER (.*)$", stages()[name], re.MULTILINE) == ["10001:10001"], name
    assert list(stages())[-1] == "api", "the smaller image is what a plain build makes"
    assert not any("worker" in line for line in stages()["api"].splitlines() if not line.startswith("#"))


def test_the_images_hold_what_is_listed() -> None:
    """A list of what goes in cannot forget the .env that somebody made yesterday; a list of what stays out can."""
    lines = [line for line in (tree.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert lines[0] == "*"
    taken = [line[1:] for line in lines if line.startswith("!")]
    assert [name for name in taken if not (tree.ROOT / name).exists()] == []
    assert not {".env", ".git", "tests", "docs"} & set(taken)


def test_images_are_pinned_to_a_release() -> None:
    """`latest` is another program every month; a database's data then needs a migration that nobody planned."""
    bases = set(re.findall(r"^FROM (\S+:\S+)", DOCKERFILE, re.MULTILINE))
    pulled = {found["image"] for found in SERVICES.values() if "build" not in found}
    assert bases == {"python:3.11-slim-bookworm"}
    assert pulled == {"postgres:17-alpine", "redis:8-alpine", "chrislusf/seaweedfs:4.36"}


def compose_env(file: Path) -> dict[str, str]:
    """What the script writes: the content of each file in the folder of secrets."""
    subprocess.run([str(tree.ROOT / "scripts" / "compose-env"), str(file)], check=True, capture_output=True)
    return {path.name: path.read_text().removesuffix("\n") for path in Path(f"{file}.secrets").iterdir()}


def lines(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", file.read_text(), re.MULTILINE))


def test_compose_env_writes_secrets_once(tmp_path: Path) -> None:
    """New passwords for a database that keeps its old one lock everybody out; a file that others read locks nobody."""
    files = [tmp_path / "one", tmp_path / "two"]
    written = [compose_env(file) for file in files]
    assert set(written[0]) == set(STACK["secrets"])
    values = [value for found in written for value in found.values()]
    assert len(set(values)) == len(values)
    assert all(re.search(r"[0-9a-f]{48}", value) for value in values)
    assert not re.search(r"[0-9a-f]{48}", files[0].read_text()), "passwords are in one place"
    folder = Path(f"{files[0]}.secrets")
    assert [path.stat().st_mode & 0o777 for path in (files[0], folder)] == [0o600, 0o700]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}, "users of a container read them"
    assert lines(files[0])["BASIN_SECRETS"] == str(folder)
    before = files[0].read_text()
    assert (compose_env(files[0]), files[0].read_text()) == (written[0], before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "one.secrets", "two", "two.secrets"]


def test_the_secrets_of_servers_and_clients_are_the_same(tmp_path: Path) -> None:
    found = compose_env(tmp_path / "env")
    assert found["database-url"] == f"postgresql://basin_service:{found['service-password']}@postgres/basin"
    assert found["broker-url"] == f"redis://:{found['redis-password']}@redis/0"
    (identity,) = json.loads(found["objects.json"])["identities"]
    keys = {"accessKey": found["objects-access-key"], "secretKey": found["objects-secret-key"]}
    assert (identity["credentials"], "Admin" in identity["actions"]) == ([keys], True)
    assert found["postgres-password"] != found["service-password"]


def test_passwords_of_an_earlier_release_move(tmp_path: Path) -> None:
    """Its servers keep theirs; only the role is new, and gets one of its own."""
    file = tmp_path / "env"
    file.write_text("".join(f"{name}={name.lower()}\n" for name in sorted(MOVED)) + "\n# ours\nBASIN_PORT=8123\n")
    found = compose_env(file)
    assert {found[name.lower().replace("_", "-")] for name in MOVED} == {name.lower() for name in MOVED}
    assert lines(file) == {"BASIN_PORT": "8123", "BASIN_SECRETS": f"{file}.secrets"}
    assert "# ours" in file.read_text()
    assert compose_env(file) == found


def test_compose_env_names_what_the_stack_reads(tmp_path: Path) -> None:
    """A variable that nothing reads is a knob that turns nothing."""
    compose_env(tmp_path / "env")
    written, read = lines(tmp_path / "env"), dict(VARIABLE.findall(COMPOSE))
    assert set(written) <= set(read)
    knobs = {name: value for name, value in written.items() if name.startswith("WORKER_")}
    assert {name: f":-{value}" for name, value in knobs.items()} == {name: read[name] for name in knobs}
