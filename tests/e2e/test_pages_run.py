"""The commands of README.md, docs/quickstart.md and docs/data.md, run in a fresh clone with a service of its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tests.support.service import until

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = {
    "make test": "it runs this test",
    "--index-url": "it downloads PyTorch",
    "make demo": "a test of its own, below",
    "make up": "the service that all other commands talk to",
    "make real-data": "it downloads MNIST",
}
"""What a block contains -> why the block is not part of the script."""

READ = ".venv/bin/python -c 'import json, sys; data = json.load(sys.stdin)[\"data\"]; print({})'"
NEWEST = READ.format('data[0]["id"]')
SWA = READ.format('next(c["id"] for c in data if c["kind"] == "swa")')
IDS = {
    r"JOB=job_\w+": f"JOB=$(.venv/bin/basin list -o json | {NEWEST}); .venv/bin/basin watch $JOB",
    r"ckpt_\w+": f"$(curl -s http://127.0.0.1:8000/v1/jobs/$JOB/checkpoints | {SWA})",
}
"""Ids that the pages show -> how the script gets those of this run."""


class Clone:
    """A fresh clone whose environment is that of this tree, and where its service listens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        self._link_environment()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BASIN_", "FORCE_COLOR"))}
        paths = os.pathsep.join([str(folder), str(folder / "sdk")])
        self.environment = kept | {"PYTHONPATH": paths, "BASIN_PORT": str(self.port), "BASIN_URL": self.url("")}

    def _link_environment(self) -> None:
        """A .venv that scripts/setup finds complete: installed packages are ours, the code is the clone's."""
        ours, venv = Path(sys.prefix), self.folder / ".venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "lib").symlink_to(ours / "lib")
        shutil.copy(ours / "pyvenv.cfg", venv)
        (venv / "bin" / "python").symlink_to(ours / "bin" / "python")
        command = (ours / "bin" / "basin").read_text(encoding="utf-8").replace(str(ours), str(venv))
        (venv / "bin" / "basin").write_text(command, encoding="utf-8")
        (venv / "bin" / "basin").chmod(0o755)
        sums = "cat deploy/locks/worker.lock pyproject.toml sdk/pyproject.toml | cksum"
        stamp = subprocess.run(
            ["bash", "-c", f'echo "worker $PWD"; {sums}'], cwd=self.folder, capture_output=True, check=True
        )
        (venv / "basin-setup").write_bytes(stamp.stdout)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def blocks(self, page: str, *languages: str) -> list[str]:
        content = (self.folder / page).read_text(encoding="utf-8")
        return [block for language, block in BLOCK.findall(content) if language in languages]

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """The script in one shell; every command that fails is reported on a line of its own."""
        trap = "trap 'echo \"::failed $? ${BASH_COMMAND%%$'\"'\\n'\"'*}\"' ERR\n"
        addressed = script.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        return subprocess.run(
            ["bash", "-uo", "pipefail", "-c", trap + addressed],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=170,
            check=False,
        )


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "basin")


@pytest.fixture
def serving(clone: Clone) -> Iterator[Clone]:
    """The clone while `make up` runs in it, as in the pages; Ctrl-C ends it."""
    with (clone.folder / "up.txt").open("w") as log:
        up = subprocess.Popen(
            ["make", "up"], cwd=clone.folder, env=clone.environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            said = clone.folder / "up.txt"
            until("the service", lambda: up.poll() is not None or "running at" in said.read_text(), 60)
            assert up.poll() is None, said.read_text()
            yield clone
        finally:
            os.killpg(up.pid, signal.SIGINT)
            up.wait(30)


def script_of(clone: Clone, page: str) -> str:
    """The shell blocks of a page, in their order, with the ids of this run."""
    blocks = [block for block in clone.blocks(page, "sh") if not any(part in block for part in NOT_RUN)]
    assert len(blocks) >= 6
    script = "\n".join(blocks)
    for shown, ours in IDS.items():
        script = re.sub(shown, lambda _, ours=ours: ours, script)
    return script


def failures(output: str) -> list[str]:
    return re.findall(r"^::failed (.+)$", output, re.MULTILINE)


@pytest.mark.slow
def test_the_quickstart_runs(serving: Clone) -> None:
    """Every command works in its order, and what does not depend on the run is printed as the page shows it."""
    done = serving.run(script_of(serving, "docs/quickstart.md"))
    assert failures(done.stdout) == ["1 .venv/bin/basin submit typo.yaml"], done.stdout
    shown = serving.blocks("docs/quickstart.md", "")
    for start in ("error: The request", "dense0.bias (128,)"):
        block = next(block for block in shown if block.startswith(start))
        assert block in done.stdout
    assert (serving.folder / "loss.svg").read_text().startswith("<svg")
    assert done.stdout.rstrip().endswith("}"), "metrics by curl are the last command"


@pytest.mark.slow
def test_the_readme_runs(serving: Clone) -> None:
    """What a stranger copies from the first page works; the job has ended when it is to be paused, which is refused."""
    done = serving.run(script_of(serving, "README.md"))
    assert failures(done.stdout) == ["1 .venv/bin/basin pause $JOB"], done.stdout
    assert '"status":422' in done.stdout.replace(" ", "")
    weights = serving.folder / "swa.safetensors"
    assert weights.stat().st_size == 105_120, "the size that the page shows"
    assert (serving.folder / "digits.svg").read_text().startswith("<svg")


@pytest.mark.slow
def test_the_guide_to_data_runs(serving: Clone) -> None:
    """A CSV file of 50,000 rows, a folder of PNG files, an npz and a Parquet file become trained jobs, a text is ready.

    What was understood of each, and each refusal, is printed as the page shows it.
    """
    done = serving.run(script_of(serving, "docs/data.md"))
    expected = ["1 .venv/bin/basin data add ragged.csv", "1 .venv/bin/basin submit foxes.yaml"]
    assert failures(done.stdout) == expected, done.stdout
    ended = set(re.findall(r"^(job_\w+)  succeeded$", done.stdout, re.MULTILINE))
    names = {name for job, name in re.findall(r"^(job_\w+)  ([a-z-]+)$", done.stdout, re.MULTILINE) if job in ended}
    assert names >= {"flights", "flights-wide", "penguins", "houses", "shapes", "waves"}, done.stdout
    shown = "".join(block for block in serving.blocks("docs/data.md", "") if "mnist" not in block)
    facts = re.findall(r"^(?:  [/\w]+: .+|error: .+|(?:status|kind) +\w+|examples +.+)$", shown, re.MULTILINE)
    assert len(facts) >= 30, "of all six data sets"
    assert set(facts) - {line.rstrip() for line in done.stdout.splitlines()} == set()


@pytest.mark.slow
def test_the_demo_runs(clone: Clone) -> None:
    """The first command of both pages, from the clone's own scripts."""
    assert "make demo" in "".join(clone.blocks("README.md", "sh") + clone.blocks("docs/quickstart.md", "sh"))
    del clone.environment["BASIN_URL"]  # with an address the demo uses a service that runs already
    done = clone.run("make demo")
    assert failures(done.stdout) == [], done.stdout
    assert "SHA-256" in done.stdout
