"""Plain technical English: phrases that a reader has to guess at do not come back."""

from pathlib import Path

import pytest

from tests.architecture import tree
from tests.architecture.language import BANNED, found_in, found_in_code, visible_texts, without_code
from tests.architecture.test_docs import PAGES, read

ROOTS = ("api", "worker", "local", "core", "sdk", "bench", "deploy")
"""Folders whose docstrings and messages are plain; the schema has a stored value that is on the list."""


@pytest.mark.parametrize("path", PAGES, ids=tree.name)
def test_pages_are_plain_english(path: Path) -> None:
    """A page that says "somebody" leaves open whether a user, an operator or a process acts."""
    assert [f"{tree.name(path)}:{line} {what}" for line, what in found_in(without_code(read(path)))] == []


@pytest.mark.parametrize("root", ROOTS)
def test_messages_and_docstrings_are_plain_english(root: str) -> None:
    """What a user reads in an error is not the place for a metaphor."""
    assert found_in_code(root) == []


def test_the_list_finds_what_it_bans() -> None:
    """A pattern that matches nothing protects nothing: the phrases in a text, in code, over two lines and quoted."""
    assert len(BANNED) >= 25
    assert all(len(instead) > 3 for instead in BANNED.values())
    page = "It goes\non, for good.\n```\nsomebody\n```\n`told` and untold beats.\n"
    assert sorted(found_in(without_code(page))) == [
        (1, "'goes on': continues"),
        (2, "'for good': permanently, without expiry"),
        (6, "'beats': heartbeat"),
    ]


def test_texts_of_the_code_are_found() -> None:
    """The collector is tried on a file whose docstring and message are known."""
    texts = [text for path, _, text in visible_texts("tests") if path == Path(__file__)]
    assert any(text.startswith("Plain technical English: phrases") for text in texts)
    assert "A pattern that matches nothing protects nothing" in " ".join(texts)
