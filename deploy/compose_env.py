"""Writes .env, with the settings of docker-compose.yml, and the folder .env.secrets with a file for each secret.

Existing files are not changed: the database keeps the passwords that it was created with. An argument names another
file than .env. Passwords that an earlier release kept in .env move into the folder. Needs only Python.
"""

import json
import os
import secrets
import shutil
import sys
from pathlib import Path

MOVED = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "OBJECTS_ACCESS_KEY", "OBJECTS_SECRET_KEY")
KNOBS = """\
# Where the passwords are.
BASIN_SECRETS={folder}

# Where the api is published: on this machine alone.
BASIN_PORT=8000
# How many jobs train at once, and with what; a slot computes on one core. Docker refuses more cores than there are.
BASIN_SLOTS=1
WORKER_CPUS=2
WORKER_MEMORY=4g
# 0: all cores.
WORKER_GPU_CPUS=0
WORKER_GPU_MEMORY=32g
# The index that PyTorch comes from, for each kind of worker; empty: pip's own, with CUDA.
TORCH_INDEX=
TORCH_INDEX_GPU=
"""


def secret_files(earlier: dict[str, str]) -> dict[str, str]:
    """File name -> content. The servers keep the passwords of `earlier`."""
    superuser, redis, access, secret = (earlier.get(name) or secrets.token_hex(24) for name in MOVED)
    service = secrets.token_hex(24)
    identity = {
        "name": "basin",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return {
        "postgres-password": superuser,
        "service-password": service,
        "database-url": f"postgresql://basin_service:{service}@postgres/basin",
        "redis-password": redis,
        "broker-url": f"redis://:{redis}@redis/0",
        "objects-access-key": access,
        "objects-secret-key": secret,
        "objects.json": json.dumps({"identities": [identity]}),
    }


def settings_in(text: str) -> dict[str, str]:
    """The lines NAME=value of an env file."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def write_secrets(folder: Path, files: dict[str, str]) -> None:
    """Writes all files or none. Only the owner can enter the folder; Compose mounts each file into a container.

    In a container the files are read by users that do not exist here, so every user may read a file.
    """
    aside = Path(f"{folder}.new")
    shutil.rmtree(aside, ignore_errors=True)  # left by an interrupted run
    aside.mkdir(mode=0o700)
    for name, content in files.items():
        (aside / name).write_text(f"{content}\n", encoding="utf-8")
        (aside / name).chmod(0o444)
    aside.rename(folder)


def write_env(file: Path, text: str) -> None:
    """Writes the file whole or not at all."""
    aside = Path(f"{file}.new")
    aside.write_text(text, encoding="utf-8")
    aside.rename(file)


def main(name: str) -> str:
    """Write what is missing; returns a message about it."""
    os.umask(0o077)
    # A user of the container reads this file too; the umask of the checkout may have removed that permission.
    role = Path("deploy/postgres/role.sh")
    role.chmod(role.stat().st_mode | 0o444)
    file, folder = Path(name), Path(f"{name}.secrets")
    before = file.read_text(encoding="utf-8") if file.exists() else None
    here = folder if folder.is_absolute() else f"./{folder}"  # Compose takes a bare name for a volume's
    if not folder.exists():
        write_secrets(folder, secret_files(settings_in(before or "")))
    elif before is not None and "BASIN_SECRETS" in settings_in(before):
        return f"{file} is there already; it stays as it is"
    if before is None:
        write_env(file, KNOBS.format(folder=here))
        return f"wrote {file} and {folder}, readable by you alone; keep a copy where you keep passwords"
    kept = [line for line in before.splitlines() if line.partition("=")[0] not in {*MOVED, "BASIN_SECRETS"}]
    write_env(file, "\n".join([*kept, f"BASIN_SECRETS={here}", ""]))
    return f"moved the passwords from {file} to {folder}, readable by you alone; keep a copy where you keep passwords"


if __name__ == "__main__":
    sys.stdout.write(f"compose-env: {main(*(sys.argv[1:] or ['.env']))}\n")
