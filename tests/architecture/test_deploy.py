"""The images and the compose stack as they are written down; `make compose-test` runs them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture import tree
from worker.slots import plan_slots

DOCKERFILE = (tree.ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (tree.ROOT / "docker-compose.yml").read_text(encoding="utf-8")
STACK: dict[str, Any] = yaml.safe_load(COMPOSE)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
SECRETS = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "OBJECTS_ACCESS_KEY", "OBJECTS_SECRET_KEY"}
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(:[-?][^}]*)?\}")


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
    assert found["restart"] == ("no" if service == "migrate" else "unless-stopped")
    assert "healthcheck" in found or service == "migrate"


def test_everything_waits_for_what_it_needs() -> None:
    """A schema that is not there yet, or a server that is still filling its volume, is an error that nobody made."""
    healthy = {"postgres": {"condition": "service_healthy"}}
    ready = healthy | {
        "migrate": {"condition": "service_completed_successfully"},
        "redis": {"condition": "service_healthy"},
        "objects": {"condition": "service_healthy"},
    }
    expected = {"migrate": healthy, "api": ready, "worker": ready, "worker-gpu": ready}
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
    assert changes_user == {"postgres"}
    assert {name for name, found in SERVICES.items() if not found["init"]} == changes_user


def test_only_the_api_is_published_and_only_here() -> None:
    """Docker's published ports pass by the host's firewall: a database on 0.0.0.0 is found within hours."""
    assert {name for name, found in SERVICES.items() if "ports" in found} == {"api"}
    assert [port.split(":")[0] for port in SERVICES["api"]["ports"]] == ["127.0.0.1"]
    assert {name for name, found in SERVICES.items() if found["networks"] != ["inside"]} == {"api"}
    assert STACK["networks"]["inside"] == {"internal": True}


def test_no_password_has_a_default() -> None:
    """A default password is the password of everybody who did not read that line."""
    used = dict(VARIABLE.findall(COMPOSE))
    assert {name for name, how in used.items() if not how.startswith(":-")} == SECRETS
    for name, how in VARIABLE.findall(COMPOSE):
        assert name not in SECRETS or (how.startswith(":?") and "make compose-env" in how), name


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
    devices = [str(index) for index in range(gpus)]
    slots = plan_slots(int(said["--slots"]), said["--queues"].split(","), devices)
    assert [(slot.kind, slot.devices) for slot in slots] == [("gpu", device) for device in devices]


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


def test_compose_env_writes_secrets_once(tmp_path: Path) -> None:
    """New passwords for a database that keeps its old one lock everybody out; a file that others read locks nobody."""
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        subprocess.run([str(tree.ROOT / "scripts" / "compose-env"), str(file)], check=True, capture_output=True)
    written = [dict(re.findall(r"^(\w+)=(.*)$", file.read_text(), re.MULTILINE)) for file in files]
    assert set(written[0]) >= SECRETS
    values = [found[name] for found in written for name in sorted(SECRETS)]
    assert len(set(values)) == len(values)
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values)
    assert files[0].stat().st_mode & 0o777 == 0o600
    before = files[0].read_text()
    subprocess.run([str(tree.ROOT / "scripts" / "compose-env"), str(files[0])], check=True, capture_output=True)
    assert files[0].read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_compose_env_names_what_the_stack_reads() -> None:
    """A variable that nothing reads is a knob that turns nothing."""
    used = {name for name, _ in VARIABLE.findall(COMPOSE)}
    offered = set(re.findall(r"^([A-Z_]+)=", (tree.ROOT / "scripts" / "compose-env").read_text(), re.MULTILINE))
    assert offered <= used
