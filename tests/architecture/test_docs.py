"""The docs say what the tree says: what they name exists, and their tables are compared with the code."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from core.lifecycle import TERMINAL, TRANSITIONS
from tests.architecture import tree

DOCS = tree.ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
PAGES = [tree.ROOT / "README.md", tree.ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
HEADINGS = ["Context", "Decision", "Consequences", "Alternatives", "Check"]
CITED = re.compile(r"`((?:api|worker|core|migrations|sdk|tests|bench|docs|deploy|scripts|\.ci)/[\w./-]*\w)/?`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")
GLOSSARY = ("term", "also known as", "meaning", "lives in")
WORDS = (
    *("job", "attempt", "spec", "component", "schema", "row", "model", "engine", "runner", "supervisor", "zygote"),
    *(
        "reconciler",
        "store",
        "event",
        "outcome",
        "hint",
        "lease",
        "heartbeat",
        "fence",
        "claim",
        "slot",
        "execution plan",
    ),
    *("checkpoint", "chunk", "series", "duration", "frame", "assignment"),
)


def table(content: str, *header: str) -> list[list[str]]:
    """The cells of the Markdown table with this header, row by row."""
    lines = content.splitlines()
    start = lines.index(f"| {' | '.join(header)} |")
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def sections(content: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", content, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_decisions_are_numbered_and_complete() -> None:
    """A gap in the numbers is a decision that somebody un-made in silence."""
    numbers = [int(re.match(r"(\d{4})-[a-z0-9-]+\.md$", path.name)[1]) for path in DECISIONS]  # type: ignore[index]
    assert numbers == list(range(1, len(DECISIONS) + 1))
    assert len(DECISIONS) >= 10


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_five_parts(path: Path) -> None:
    """Rules without a check drifted in every code base that we read, and a decision that cannot be quoted is not known.

    So each says in one sentence what was decided, and names the file that enforces it.
    """
    content = read(path)
    found = sections(content)
    assert content.startswith(f"# {int(path.name[:4])}. ")
    assert list(found) == HEADINGS
    assert all(text.strip() for text in found.values())
    quotes = [line for line in found["Decision"].splitlines() if line.startswith("> ")]
    assert len(quotes) == 1, "one quotable sentence"
    assert quotes[0].endswith(".")
    assert quotes[0].count(". ") == 0, "one sentence, not two"
    assert CITED.search(found["Check"]) or "`pyproject.toml`" in found["Check"], "name the check"


def test_the_glossary_has_every_word() -> None:
    """Two people who mean different things by "run" agree in the meeting and disagree in production."""
    rows = table(read(DOCS / "glossary.md"), *GLOSSARY)
    words = [row[0].strip("*") for row in rows]
    assert set(WORDS) <= set(words)
    assert len(set(words)) == len(words)
    assert all(len(row) == 4 and row[2].endswith(".") for row in rows)
    assert all(CITED.fullmatch(row[3]) for row in rows), "every word has a home"
    assert all(len(row[1]) > 2 for row in rows), "people search for the word of their last framework"


def test_the_words_of_the_glossary_are_used_in_the_code() -> None:
    """A word that its own home does not use was renamed there, and the glossary explains a word that is gone."""
    strangers = [
        row[0] for row in table(read(DOCS / "glossary.md"), *GLOSSARY) if not used_in(row[3].strip("`/"), row[:2])
    ]
    assert strangers == []


def used_in(home: str, terms: list[str]) -> bool:
    """Whether the text or the names of the files at `home` have one of these terms, or its plural or compounds."""
    words = [word.strip(" *`") for term in terms for word in term.split(",")]
    paths = [tree.ROOT / home] if home.endswith(".py") else list((tree.ROOT / home).rglob("*.py"))
    text = " ".join(f"{path.stem} {read(path)}" for path in paths).lower().replace("_", " ")
    return any(word.lower().replace("_", " ").replace("-", " ") in text.replace("-", " ") for word in words)


def test_the_path_of_a_job_has_ten_steps() -> None:
    """The page promises a reading order; a step without a file is a step that a reader cannot take."""
    pattern = re.compile(r"^(\d+)\. (.+?)(?=^\d+\. |^While|\Z)", re.MULTILINE | re.DOTALL)
    steps = pattern.findall(read(DOCS / "path-of-a-job.md"))
    assert [int(number) for number, _ in steps] == list(range(1, 11))
    assert all(CITED.search(step) for _, step in steps)


@pytest.mark.parametrize("path", PAGES, ids=tree.name)
def test_what_the_docs_name_exists(path: Path) -> None:
    """A moved file leaves its old name in the docs, where it costs every newcomer ten minutes."""
    content = read(path)
    links = [link for link in LINK.findall(content) if not (path.parent / link).exists()]
    cited = [spot for spot in CITED.findall(content) if not (tree.ROOT / spot).exists()]
    assert links + cited == []


@pytest.mark.parametrize("path", PAGES, ids=tree.name)
def test_the_tests_that_a_page_names_exist(path: Path) -> None:
    """Figures beside `test_care.py` cannot be checked once the file has another name."""
    known = {each.name for each in tree.python("tests")}
    assert set(re.findall(r"\btest_\w+\.py\b", read(path))) - known == set()


def test_the_state_machine_on_paper_is_the_one_in_the_code() -> None:
    """An operator reads the page at three in the morning, and it must not be the page of the release before."""
    rows = table(read(DOCS / "protocol.md"), "from", "to", "by", "when")
    drawn = {(row[0], row[1]) for row in rows}
    coded = {(old.value, new.value) for old, targets in TRANSITIONS.items() for new in targets}
    assert len(drawn) == len(rows)
    assert drawn == coded
    assert all(f"`{status.value}`" in read(DOCS / "protocol.md") for status in TERMINAL)


def test_the_changelog_knows_the_version() -> None:
    """A release that its changelog does not mention is found by the users first."""
    project = tomllib.loads(read(tree.ROOT / "pyproject.toml"))["project"]
    client = tomllib.loads(read(tree.ROOT / "sdk" / "pyproject.toml"))["project"]
    headings = re.findall(r"^## (\d+\.\d+\.\d+)", read(tree.ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert project["version"] == client["version"] == headings[0]
    versions = [tuple(map(int, heading.split("."))) for heading in headings]
    assert all(newer > older for newer, older in pairwise(versions)), "newest first"


def test_the_licence_is_the_whole_licence() -> None:
    """A licence that is shortened or edited is another licence; lawyers compare the text, and so do tools."""
    licence = read(tree.ROOT / "LICENSE")
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert all(f"\n   {number}. " in licence for number in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in licence
    assert len(licence.split()) == 1581


def test_the_tests_of_what_was_found_exist() -> None:
    """A promise whose test was renamed or removed is one that nobody keeps."""
    rows = table(read(DOCS / "reliability.md"), "no.", "what failed", "what holds now", "test")
    named = [re.findall(r"`([^`]+)`", row[3]) for row in rows]
    assert all(len(row) == 4 and tests for row, tests in zip(rows, named, strict=True))
    assert list(dict.fromkeys(int(row[0]) for row in rows)) == list(range(1, 22))
    assert [test for tests in named for test in tests if not defines(*test.partition("::")[::2])] == []


def defines(path: str, function: str) -> bool:
    """Whether this file of the tests is there, with this function if one is named."""
    file = tree.ROOT / path
    return file.is_file() and path.startswith("tests/") and (not function or f"\ndef {function}(" in read(file))
