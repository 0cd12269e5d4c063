"""The path of one POST /v1/jobs through the code: the files of api and core that it enters, and its returns.

python -m bench.path [--list]

A real app on a SQLite database, one post after others for warm-up, counted by sys.setprofile in the threads that serve
it. A return is a call from another file into a file that the request has entered before. It also prints how often a job
was validated. `--list` adds the files with their returns, most first.
"""

import argparse
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final
from unittest.mock import patch

from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from core.db.migrate import upgrade_schema
from core.recipe.spec import JobSpec
from core.settings import Settings

ROOT: Final = Path(__file__).resolve().parents[1]
COUNTED: Final = tuple(f"{ROOT / folder}/" for folder in ("api", "local", "core"))
WARM_POSTS: Final = 5
DIGITS: Final[dict[str, Any]] = {"name": "digits"}
JOBS: Final[dict[str, dict[str, Any]]] = {
    "smallest": {"model": {"name": "logistic"}, "data": {"name": "iris"}, "optimizer": {"name": "adam"}, "epochs": 10},
    "plain": {"model": {"name": "mlp"}, "data": DIGITS, "optimizer": {"name": "sgd", "lr": 0.01}, "epochs": 30},
    "cosine and SWA": {
        "model": {"name": "mlp", "hidden": [128, 128]},
        "data": DIGITS,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
        "schedule": {"name": "cosine", "warmup": "1ep"},
        "swa": True,
        "epochs": 30,
    },
}


class Walk:
    """The path of one request through the files of api and core."""

    def __init__(self) -> None:
        self.here = ""
        self.entered: set[str] = set()
        self.returns: Counter[str] = Counter()

    def count(self, frame: FrameType, event: str, _argument: object) -> None:
        """For sys.setprofile: a call into another file is an entry, or a return if the request was there before."""
        file = frame.f_code.co_filename
        if event != "call" or file == self.here or not file.startswith(COUNTED):
            return
        self.returns[file] += file in self.entered
        self.entered.add(file)
        self.here = file


class Watch:
    """The profile function of new threads; it counts only while a walk is measured."""

    def __init__(self) -> None:
        self.walk: Walk | None = None

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if self.walk is not None:
            self.walk.count(frame, event, argument)

    @contextmanager
    def counted(self) -> Iterator[Walk]:
        self.walk = found = Walk()
        try:
            yield found
        finally:
            self.walk = None


@contextmanager
def watched_app(home: Path) -> Iterator[tuple[TestClient, Watch]]:
    """A client of an app whose threads are watched."""
    watch, url = Watch(), f"sqlite:///{home / 'basin.db'}"
    upgrade_schema(url)
    settings = Settings(home=home, database_url=SecretStr(url), tick_seconds=600, host="127.0.0.1")
    threading.setprofile(watch)
    try:
        with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
            yield client, watch
    finally:
        threading.setprofile(None)


def post(client: TestClient, job: dict[str, Any]) -> None:
    answer = client.post("/v1/jobs", json=job)
    if answer.status_code != 201:
        raise RuntimeError(answer.text)


def measured(client: TestClient, watch: Watch, job: dict[str, Any]) -> tuple[Walk, int]:
    """The path of a post after warm-up, and how often a job was validated on it."""
    for _ in range(WARM_POSTS):
        post(client, job)
    with watch.counted() as walk:
        post(client, job)
    with patch.object(JobSpec, "model_validate_json", side_effect=JobSpec.model_validate_json) as validated:
        post(client, job)
    return walk, validated.call_count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, watched_app(Path(folder)) as (client, watch):
        for name, job in JOBS.items():
            walk, validations = measured(client, watch, job)
            ways = f"{len(walk.entered)} files entered, {walk.returns.total()} returns"
            print(f"{name}: {ways}, {validations} validation(s) of a job")
            for file, count in walk.returns.most_common() if options.list else ():
                print(f"  {count:4} {file.removeprefix(f'{ROOT}/')}")


if __name__ == "__main__":
    main()
