"""The README is the first thing that a stranger runs; so what it says is compared with the tree."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from core.errors import InvalidSpec
from core.recipe.catalog import component_classes
from core.recipe.parse import parse_job
from core.settings import Settings
from tests.architecture import tree
from tests.architecture.test_docs import CITED, read, table
from tests.architecture.test_imports import fresh

README = tree.ROOT / "README.md"
PLAIN = ("JOB=", "sha256sum ", "python3 -m venv .venv", ".venv/bin/pip install torch")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(README), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command of the shell blocks: bodies in quotes emptied, continued lines joined, comments dropped."""
    joined = "\n".join(blocks("sh")).replace("\\\n", " ")
    bare = re.sub(r"'[^']*'", "''", joined)
    return [line.split(" #")[0].strip() for line in bare.splitlines() if line.strip() and not line.startswith("#")]


def posted() -> list[dict[str, Any]]:
    return [json.loads(body) for body in re.findall(r"-d '(\{.*?\})'", "\n".join(blocks("sh")), re.DOTALL)]


def test_every_folder_is_described() -> None:
    """A map with a white spot sends people into it; a map with a place that is gone sends them nowhere."""
    here = {tree.name(path).split("/")[0] for path in tree.files() if "/" in tree.name(path)}
    rows = table(read(README), "folder", "what is in it")
    assert {row[0].strip("`/") for row in rows} == here
    assert all(len(row[1]) > 20 for row in rows)


def test_every_make_command_exists() -> None:
    """`make demo` is the promise of the first page; a renamed target breaks it for everybody but its author."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", read(tree.ROOT / "Makefile"), re.MULTILINE))
    wanted = {word for command in commands() if command.startswith("make") for word in command.split()[1:]}
    assert {"demo", "test"} <= wanted
    assert wanted <= targets


def test_every_line_is_of_a_kind_that_is_checked() -> None:
    """A line that no test understands is a line that rots; the list of plain ones is short on purpose."""
    known = ("make ", ".venv/bin/basin ", "curl ", *PLAIN)
    assert [command for command in commands() if not command.startswith(known)] == []


def test_every_basin_command_exists() -> None:
    """The command line grows and gets renamed; it is asked for its verbs in a process of its own, plugins included."""
    used = set(re.findall(r"\.venv/bin/basin ([a-z]+)", read(README)))
    assert {"up", "submit", "run"} <= used
    code = "import typer; from basin.cli import build_app; print(*typer.main.get_command(build_app()).commands)"
    assert used - set(fresh(code).split()) == set()


def test_every_job_file_exists() -> None:
    """The first thing that somebody types after the demo should not answer "no such file"."""
    named = re.findall(r"\S+\.yaml", "\n".join(commands()))
    assert named
    assert [path for path in named if not (tree.ROOT / path).is_file()] == []


def test_every_curl_goes_to_a_route(tmp_path: Path) -> None:
    """Examples outlive routes: the paths are looked up in the document that the api serves."""
    app = create_app(Settings(home=tmp_path))
    routes = [re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path) + "$") for path in app.openapi()["paths"]]
    urls = [url for line in commands() for url in re.findall(r"http://127\.0\.0\.1:8000(/[^\s'\"?]*)", line)]
    assert any(url == "/v1/jobs" for url in urls)
    assert [url for url in urls if not any(route.match(url) for route in routes)] == []


def test_what_is_posted_is_answered_so() -> None:
    """The example is copied more often than any other line; the answer under it is the contract people remember.

    Its members are compared with what the code makes of the body today; the refusal, with the reason it gives today.
    """
    good, bad = posted()
    answers = [json.loads(block) for block in blocks("json")]
    job = next(answer for answer in answers if answer.get("status") == "queued")
    spec = parse_job(json.dumps(good).encode()).resolved()
    known = {key: value for key, value in spec.dump().items() if key in job}
    assert len(known) >= 4, "show what was filled in"
    assert known == {key: job[key] for key in known}
    assert job["progress"]["steps"] == spec.shape().run.total_steps
    with pytest.raises(InvalidSpec) as refused:
        parse_job(json.dumps(bad).encode())
    problem = next(answer for answer in answers if answer.get("status") == 422)
    assert problem["errors"] == [asdict(error) for error in refused.value.errors]
    assert problem["code"] == refused.value.code


def test_no_setting_is_invented() -> None:
    """A setting that was removed is copied into wikis and tickets as long as the README names it."""
    named = set(re.findall(r"BASIN_([A-Z0-9_]+)", read(README)))
    client = set(re.findall(r'envvar="BASIN_([A-Z0-9_]+)"', "".join(read(path) for path in tree.python("sdk"))))
    assert {name.lower() for name in named - client} <= set(Settings.model_fields)


def test_the_first_screen_says_what_can_be_trained() -> None:
    """Who reads "trains neural networks" and finds ten built-in datasets on page three has lost an hour."""
    screen = " ".join(read(README).split("\n## ", 1)[0].split())
    assert len(read(README).split("\n## ", 1)[0].splitlines()) <= 24
    for name in (*component_classes("datasets"), *(name for name in component_classes("models") if name != "logistic")):
        assert re.search(rf"\b{name}\b", screen), name
    done, missing = screen.split("does not do yet")
    assert "Your own data" in done
    assert [word for word in ("texts", "large", "dashboard", "several GPUs") if word not in missing] == []


def test_the_path_of_a_job_names_its_files() -> None:
    """The reading order for newcomers, in ten lines, on the first page."""
    part = read(README).split("## The path of a job", 1)[1].split("\n## ", 1)[0]
    lines = re.findall(r"^\d+\. .*$", part, re.MULTILINE)
    assert len(lines) == 10
    assert all(CITED.search(line) for line in lines)


def test_the_readme_is_a_page_for_strangers() -> None:
    """A first page that needs a second page to be understood is not the first page."""
    assert len(read(README).splitlines()) <= 276
    assert "…" not in "".join(blocks("json")), "answers are real; what is left out is said in the text"
