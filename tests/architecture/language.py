"""Phrases that plain technical English does without, each with what to write instead.

The list holds what was found in our own pages: translated idioms, metaphors, and persons where a process acts. A word
that names something in the code (`claim`, `fence`, `zygote`) is no metaphor: the glossary explains it.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.architecture import tree

BANNED: dict[str, str] = {
    r"some(?:body|one)": "the user, the operator, another process: who acts?",
    r"nobody|no one": "no user, no process",
    r"everybody": "all users",
    r"whoever": "the user who",
    r"(?:he|she|his|her|hers|himself|herself)": "the user",
    r"(?:told|tells?)(?! (?:\w+ ){0,3}apart)": "reported, reports",
    r"in vain": "without effect",
    r"for good": "permanently, without expiry",
    r"(?:go|goes|going|went|gone) on": "continues",
    r"anew": "again",
    r"what is not so": "name the difference",
    r"whatever it knows": "name what is known",
    r"signs? of life": "heartbeat",
    r"(?<![-_.])beat(?:s|en)?": "heartbeat",
    r"hears?|heard": "receives, monitors",
    r"(?:not|never|do|does) notice": "is not affected",
    r"borrow(?:s|ed)?|lends?|lent": "copies, uses",
    r"judge[sd]?": "evaluated, rated",
    r"(?:is|are|was|were) taken for": "counts as",
    r"doom(?:s|ed)?": "marked for deletion",
    r"swept": "removed by garbage collection",
    r"forg[eo]ts?|forgotten": "discards, loses",
    r"believe[sd]?": "assumes, counts as",
    r"wakes? up": "resumes, starts",
    r"the truth": "the authoritative state",
    r"(?:behind|through) the (?:same )?(?:door|back)": "say what is checked",
    r"walls?(?!-clock)|walled": "isolation",
    r"leads? nowhere": "has no route",
    r"played by|plays? (?:one|it)": "simulated by",
    r"says? so|said so": "reports it, reports why",
    r"(?:is|was) at (?:its|an) end": "is spent",
    r"what (?:was|is) meant": "the intended name",
    r"(?:write|writes|written|wrote) down": "store",
    r"as (?:it|one|they) should be": "correct",
    r"(?:for|after) so (?:long|many)": "for that time, after this time",
    r"so many-th": "every n-th",
    r"the very": "the same, exactly the",
    r"g[ia]ven? up|gives up": "abandoned, not tried again",
    r"owns? the (?:learning )?rate": "sets the learning rate",
    r"mind that": "note that",
    r"(?:the same|this one's|shared) past": "the same history",
    r"another ending": "changed fields after the checkpoint",
    r"(?:stands?|standing|stood) (?:in|at|on|beside|behind|here|there|under|among)": "is in, is at",
    r"l(?:ies|ay|ie) (?:in|at|on)": "is in",
    r"wish(?:es)?": "request",
    r"said otherwise": "by default",
    r"without a word": "without output",
    r"in (?:the library's|its own) words": "with its own message",
    r"alive": "running",
    r"speaks? (?:of|for)": "describes, applies to",
    r"excused": "name the rule",
    r"one (?:can|may|sees|likes|wants|looks|asks)": "you can",
    r"as one likes": "at will",
    r"com(?:e|es|ing) out": "result",
    r"once (?:for|and) all": "once",
    r"riddles?": "say it",
    r"worth nothing": "not usable",
    r"knows? (?:nothing|no|everything|that they)": "has no access to",
    r"(?:the|our|its) house": "the service",
    r"by (?:itself|themselves|himself)": "automatically, separately",
}
"""Pattern -> what to write instead. Patterns match whole words, in any case."""

PROSE_ONLY = {r"by (?:itself|themselves|himself)", r"alive", r"(?:he|she|his|her|hers|himself|herself)"}
"""What is unclear on a page and clear beside code."""

IN_CODE: dict[str, str] = {phrase: instead for phrase, instead in BANNED.items() if phrase not in PROSE_ONLY} | {
    r"oops|sorry|please": "cause, place, remedy",
    r"an error (?:has )?occurred|something went wrong": "which error",
    r"invalid (?:input|value|request)": "which field, and what it accepts",
}
"""The list for docstrings and messages."""

_FENCED = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r"`[^`\n]*`|\]\([^)]*\)|https?://\S+")


def without_code(page: str) -> str:
    """The prose of a Markdown page: lines stay where they are, blocks, code and link targets are blank."""
    blank = _FENCED.sub(lambda block: "\n" * block[0].count("\n"), page)
    return _QUOTED.sub(lambda quoted: " " * len(quoted[0]), blank)


def found_in(prose: str, phrases: Mapping[str, str] = BANNED) -> Iterator[tuple[int, str]]:
    """(line, what to write instead of what) of every banned phrase; a phrase may be broken over two lines."""
    for phrase, instead in phrases.items():
        spaced = phrase.replace(" ", r"\s+")
        for match in re.finditer(rf"(?<!\w)(?:{spaced})(?!\w)", prose, re.IGNORECASE):
            yield prose.count("\n", 0, match.start()) + 1, f"{' '.join(match[0].split())!r}: {instead}"


def visible_texts(root: str) -> Iterator[tuple[Path, int, str]]:
    """(file, line, text) of every docstring and message under a top-level folder.

    A message is a string constant with a space in it; parts of f-strings count one by one.
    """
    for path in tree.python(root):
        for node in tree.nodes(path):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
                yield path, node.lineno, _QUOTED.sub(lambda quoted: " " * len(quoted[0]), node.value)


def found_in_code(root: str) -> list[str]:
    """Every banned phrase in the docstrings and messages of a folder."""
    return [
        f"{tree.name(path)}:{line + offset - 1} {what}"
        for path, line, text in visible_texts(root)
        for offset, what in found_in(text, IN_CODE)
    ]
