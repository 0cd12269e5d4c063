"""Writes the generated sections of the docs: `python -m core.recipe.reference` in the repository's root.

Summaries, papers, types and defaults come from the components, meanings and common names from fields.toml. A section
is between `<!-- generated: KIND -->` and `<!-- end of generated -->`; the text around it is written by hand.
"""

import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pydantic.fields import FieldInfo

from core.recipe.analyses import AnyAnalysis, analysis_classes
from core.recipe.averaging import AveragingSpec, EnsembleSpec
from core.recipe.catalog import Described, Kind, catalog_entry, component_classes
from core.recipe.component import Component, Spec
from core.recipe.schema_text import type_text
from core.recipe.spec import JobSpec

PAGES: Final = (Path("docs/recipe.md"), Path("docs/analyses.md"))
FIELDS: Final = Path(__file__).with_name("fields.toml")
HEADER: Final = "| field | type | default | common name | meaning |\n|---|---|---|---|---|"
SELECTORS: Final = frozenset(
    {"name", "method", "kind", "by", "op"}
)  # these select a component from its union, and are its heading
_SECTION: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)

Guide = Mapping[str, Mapping[str, Sequence[str]]]
"""Section -> field -> (common name, meaning)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One field of one component."""

    field: str
    kind: str
    default: str
    common: str
    meaning: str

    def text(self) -> str:
        return f"| `{self.field}` | {self.kind} | {self.default} | {self.common} | {self.meaning} |"


def read_guide() -> Guide:
    """The meanings and common names of all fields."""
    return tomllib.loads(FIELDS.read_text(encoding="utf-8"))


def fill_page(page: str) -> str:
    """The page with every generated section replaced."""
    sections = {"job": _job_section, **dict.fromkeys((*get_args(Kind), "analyses"), _kind_section)}
    return _SECTION.sub(lambda found: f"{found[1]}\n{sections[found[2]](found[2])}\n\n{found[3]}", page)


def _job_section(section: str) -> str:
    guide = read_guide()
    parts = [_table(_rows(JobSpec, section, None, guide))]
    for field, spec in nested_specs():
        parts += [f"### {field}", _one_line(spec.__doc__), _table(_rows(spec, section, field, guide))]
    return "\n\n".join(parts)


def nested_specs() -> Iterator[tuple[str, type[Spec]]]:
    """(field, class) of each nested spec of a job that is not a component."""
    for name, field in JobSpec.model_fields.items():
        found = [each for each in _classes(field.annotation) if not issubclass(each, Component | AveragingSpec)]
        yield from ((field.alias or name, each) for each in found)


def _classes(annotation: Any) -> Iterator[type[Spec]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation
    for inner in get_args(annotation):
        yield from _classes(inner)


def _kind_section(section: str) -> str:
    guide = read_guide()
    classes = section_classes(section)
    rows = {name: list(_rows(each, section, name, guide)) for name, each in classes.items()}
    shared = _shared_rows(list(rows.values()))
    parts = [f"Fields of all {section}:", _table(shared)] if shared else []
    for name, component in classes.items():
        own = [row for row in rows[name] if row not in shared]
        missing = [f"`{row.field}`" for row in shared if row.field not in {each.field for each in rows[name]}]
        parts += [f"### {_heading(component, name)}", _introduction(name, component)]
        parts += [f"It has no {', '.join(missing)}."] if missing else []
        parts += [_table(own)] if own else []
        parts += _nested_parts(section, name, component, guide)
    return "\n\n".join(parts)


def _nested_parts(section: str, name: str, component: type[Spec], guide: Guide) -> Iterator[str]:
    """The parts of a component that the guide has a section for, such as the ways to split a dataset."""
    for field, spec in component_parts(component):
        if f"{section}/{name}/{field}" not in guide:
            continue
        tag = next((str(spec.model_fields[each].default) for each in SELECTORS if each in spec.model_fields), "")
        yield f"#### {field} {tag}".rstrip()
        yield _one_line(spec.__doc__)
        if rows := list(_rows(spec, section, f"{name}/{field}", guide)):
            yield _table(rows)


def component_parts(component: type[Spec]) -> Iterator[tuple[str, type[Spec]]]:
    """(field, class) of each spec within a component; a field with several forms has one for each."""
    for name, info in component.model_fields.items():
        yield from ((info.alias or name, each) for each in _classes(info.annotation))


def section_classes(section: str) -> Mapping[str, type[Described | AnyAnalysis]]:
    """Name -> class of the components, or the analyses, of a section."""
    return (
        analysis_classes()
        if section == "analyses"
        else component_classes(next(kind for kind in get_args(Kind) if kind == section))
    )


def _heading(component: type[Spec], name: str) -> str:
    return f"ensemble {name}" if issubclass(component, EnsembleSpec) else name


def _introduction(name: str, component: type[Described | AnyAnalysis]) -> str:
    """Summary, paper and formulas; the page of the analyses has its own text in place of formulas."""
    about = catalog_entry(name, component)
    source = f" Source: {about.paper}." if about.paper else ""
    formulas = "" if issubclass(component, AnyAnalysis) else f"\n\n{_one_line(about.description)}"
    return f"{about.summary}{source}{formulas}"


def _rows(spec: type[Spec], kind: str, name: str | None, guide: Guide) -> Iterator[Row]:
    schema = spec.model_json_schema(by_alias=True)
    for field, info in spec.model_fields.items():
        shown = info.alias or field
        if shown in SELECTORS and name is not None:
            continue
        common, meaning = _guided(guide, kind, name, shown)
        yield Row(shown, type_text(schema["properties"][shown]), _default(info), common, meaning)


def _guided(guide: Guide, kind: str, name: str | None, field: str) -> Sequence[str]:
    """Common name and meaning of a field: for this component, else for its kind."""
    for section in (f"{kind}/{name}", kind):
        if field in guide.get(section, {}):
            return guide[section][field]
    raise KeyError(f"fields.toml has no entry for {field!r} in {kind}/{name}")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Spec):
        return f"`{json.dumps(value.dump())}`" if len(json.dumps(value.dump())) <= 40 else "see below"
    return _literal(value)


def _literal(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return "`[" + ", ".join("null" if one is None else _number(one) for one in value) + "]`"
    return f"`{_number(value)}`"


def _number(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shared_rows(tables: list[list[Row]]) -> list[Row]:
    """The rows that all components, or all but one, share with the same type, default and meaning."""
    times = Counter(row for table in tables for row in table)
    return [row for row, count in times.items() if count >= max(2, len(tables) - 1)]


def _table(rows: "Iterator[Row] | Sequence[Row]") -> str:
    return "\n".join([HEADER, *(row.text() for row in rows)])


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def main() -> int:
    """Rewrite the generated sections of the pages."""
    for page in PAGES:
        page.write_text(fill_page(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
