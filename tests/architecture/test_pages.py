"""Pages that are written from the code, or compared with it: the recipe, the settings, the glossary."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic_core import PydanticUndefined

from core.recipe.catalog import Kind, component_classes
from core.recipe.component import Spec
from core.recipe.reference import PAGES as GENERATED
from core.recipe.reference import SELECTORS, component_parts, fill_page, nested_specs, read_guide, section_classes
from core.recipe.spec import JobSpec
from core.settings import Settings
from tests.architecture import tree
from tests.architecture.test_docs import DOCS, PAGES, read

RECIPE = DOCS / "recipe.md"
SETTINGS = DOCS / "settings.md"
CELL_CHARACTERS = 200
ANCHOR = re.compile(r"\]\(([\w./-]*)#([\w-]+)\)")
CLIENT = {"BASIN_URL", "BASIN_API_KEY", "BASIN_SLOTS", "BASIN_SECRETS"}


def tables(content: str, *header: str) -> list[list[str]]:
    """The cells of every table with this header."""
    blocks = re.findall(rf"^\| {re.escape(' | '.join(header))} \|\n\|[-|]+\n((?:\|.*\n)+)", content, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for block in blocks for line in block.splitlines()]


def prose(content: str) -> str:
    return re.sub(r"^```.*?^```$", "", content, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(read(path)), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [page for page in PAGES if page.name != "reliability.md"], ids=tree.name)
def test_no_cell_is_a_paragraph(path: Path) -> None:
    """A paragraph in a cell is read by nobody: browsers make a column of three words of it."""
    cells = [
        cell.strip()
        for line in prose(read(path)).splitlines()
        if line.lstrip().startswith("|")
        for cell in re.split(r"(?<!\\)\|", line)
    ]
    assert [cell for cell in cells if len(cell) > CELL_CHARACTERS] == []


@pytest.mark.parametrize("path", PAGES, ids=tree.name)
def test_links_lead_to_headings(path: Path) -> None:
    """A link to a heading that was renamed leads to the top of a page of a thousand lines."""
    lost = [
        f"{target}#{anchor}"
        for target, anchor in ANCHOR.findall(read(path))
        if anchor not in anchors((path.parent / target) if target else path)
    ]
    assert lost == []


@pytest.mark.parametrize("page", GENERATED, ids=str)
def test_a_generated_page_is_what_the_generator_writes(page: Path) -> None:
    """A page that is written by hand beside the code names the options of the release before.

    When this fails: `python -m core.recipe.reference`.
    """
    assert fill_page(read(tree.ROOT / page)) == read(tree.ROOT / page)


def test_the_recipe_has_a_heading_for_each_component() -> None:
    """The generator fills the sections that it finds: one that was deleted by hand would be missed by nobody."""
    headings = re.findall(r"^### (?:ensemble )?(\S+)$", read(RECIPE), re.MULTILINE)
    wanted = [name for kind in get_args(Kind) for name in component_classes(kind)]
    assert sorted(headings) == sorted([*wanted, *(name for name, _ in nested_specs())])
    assert len(wanted) >= 50
    assert set(section_classes("analyses")) <= set(re.findall(r"^### (\S+)$", read(DOCS / "analyses.md"), re.MULTILINE))


def field_names(spec: type[Spec]) -> set[str]:
    return {info.alias or name for name, info in spec.model_fields.items()}


def test_the_guide_explains_fields_that_exist() -> None:
    """A field that was renamed leaves its old name in fields.toml, where nothing reads it."""
    fields = {"job": field_names(JobSpec)}
    fields |= {f"job/{name}": set(spec.model_fields) for name, spec in nested_specs()}
    for kind in (*get_args(Kind), "analyses"):
        each = {name: field_names(component) for name, component in section_classes(kind).items()}
        fields |= {f"{kind}/{name}": found for name, found in each.items()}
        for name, component in section_classes(kind).items():
            for field, spec in component_parts(component):
                fields.setdefault(f"{kind}/{name}/{field}", set()).update(field_names(spec))
        fields[kind] = set().union(*each.values()) | SELECTORS
    spare = {section: set(told) - fields.get(section, set()) for section, told in read_guide().items()}
    assert {section: names for section, names in spare.items() if names} == {}
    assert all(meaning.endswith(".") for told in read_guide().values() for _, meaning in told.values())


@pytest.mark.parametrize(
    "term", ["gradient accumulation", "LR range test", "fine-tuning", "hyperparameters", "warm start", "reproducible"]
)
def test_the_recipe_can_be_searched_for_common_names(term: str) -> None:
    """People search for the term that their last framework used."""
    assert term in read(RECIPE)


def shown(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_every_setting_is_listed(field: str) -> None:
    """A setting that is not in the table is found by reading source code, at the worst moment."""
    rows = {row[0].strip("`"): row for row in tables(read(SETTINGS), "setting", "default", "meaning")}
    row = rows[field.upper() if Settings.model_fields[field].validation_alias else f"BASIN_{field.upper()}"]
    default = Settings.model_fields[field].default
    assert default is not PydanticUndefined, "every setting has a default: the service starts without any"
    if default is not None:
        assert row[1] == f"`{shown(default)}`"
    assert row[2].endswith(".")


def test_no_setting_is_listed_that_does_not_exist() -> None:
    """An operator who sets a variable that nothing reads believes that it is set."""
    rows = [row[0].strip("`").lower() for row in tables(read(SETTINGS), "setting", "default", "meaning")]
    assert len(set(rows)) == len(rows) == len(Settings.model_fields)
    named = set(re.findall(r"BASIN_[A-Z0-9_]+", read(SETTINGS)))
    assert {name.removeprefix("BASIN_").lower() for name in named - CLIENT} <= set(Settings.model_fields)
