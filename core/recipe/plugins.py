"""Plug-ins: parts of a recipe from distributions that the operator has installed.

A distribution names its spec classes by entry points in the groups of `GROUPS`. The unions of the recipe stay explicit;
`JoinPlugins` adds the installed classes to them when a schema is built, and `union_members` lists all members. Nothing
is looked for when a module is imported. A distribution joins with all of its classes or is refused as a whole: a worker
that has the plug-in has every part of it.
"""

import inspect
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, metadata
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from core.recipe.component import Component
from core.recipe.named import NamedComponent, named_or_object
from core.recipe.plugin_files import digest_distribution
from core.recipe.plugin_probe import probe_modules

log = logging.getLogger(__name__)

GROUPS: Final[Mapping[str, tuple[str, str]]] = {
    "basin.models": ("core.recipe.models:Model", "core.recipe.models.base:ModelSpec"),
    "basin.optimizers": ("core.recipe.optimizers:Optimizer", "core.recipe.optimizers.base:OptimizerSpec"),
    "basin.schedules": ("core.recipe.schedules:Schedule", "core.recipe.schedules.base:ScheduleSpec"),
    "basin.data": ("core.recipe.data:Data", "core.recipe.data.base:SyntheticData"),
    "basin.losses": ("core.recipe.losses:Loss", "core.recipe.losses.base:LossSpec"),
    "basin.metrics": ("core.recipe.metrics:Metric", "core.recipe.metrics.base:MetricSpec"),
}
"""Group of entry points -> the union that its classes join, and the base that they have."""
_IMPORT_STRING: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Plugin:
    """An installed distribution whose classes have joined; `components` are pairs of group and class."""

    name: str
    version: str
    sha256: str
    components: tuple[tuple[str, type[Component]], ...]

    @property
    def identity(self) -> str:
        """Equal for equal code: the version, and the digest of the files."""
        return f"{self.version} sha256:{self.sha256}"


@dataclass(frozen=True, slots=True)
class RefusedPlugin:
    """An installed distribution that does not join, and why.

    `entry_points` are those that it lists, group:name, none of which is offered.
    """

    name: str
    version: str
    reason: str
    entry_points: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InstalledPlugins:
    """Both in the order of their names."""

    joined: tuple[Plugin, ...] = ()
    refused: tuple[RefusedPlugin, ...] = ()


@dataclass(frozen=True, slots=True)
class JoinPlugins:
    """In a union's annotation: the installed classes of a group are members too, told apart by `name`.

    With `by_name` the members are NamedComponents, and a string stands for a member with every default.
    """

    group: str
    by_name: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Without plug-ins the schema is that of the explicit union."""
        joined = plugin_components(self.group)
        members: Any = Union[(*get_args(source), *joined)]
        union = Annotated[members, Field(discriminator="name")]
        objects = handler.generate_schema(union) if joined else handler(source)
        return named_or_object(get_args(members), objects) if self.by_name else objects


@dataclass(slots=True)
class _Candidate:
    """A distribution with its entry points, by group."""

    distribution: metadata.Distribution
    entries: list[metadata.EntryPoint] = field(default_factory=list)

    @property
    def modules(self) -> list[str]:
        return sorted({entry.module for entry in self.entries})


@cache
def installed_plugins() -> InstalledPlugins:
    """What is installed, looked up once in a process. What is refused is logged and never raises."""
    candidates = find_candidates()
    if not candidates:
        return InstalledPlugins()
    # Where torch is imported already, there is nothing that a spec module could spoil.
    heavy = {} if "torch" in sys.modules else probe_modules({name: each.modules for name, each in candidates.items()})
    joined: list[Plugin] = []
    refused: list[RefusedPlugin] = []
    for name, candidate in sorted(candidates.items()):
        reason = heavy.get(name)
        found = reason or _join(candidate, joined)
        if isinstance(found, Plugin):
            joined.append(found)
            continue
        listed = tuple(f"{entry.group}:{entry.name}" for entry in candidate.entries)
        refused.append(RefusedPlugin(name, candidate.distribution.version, found, listed))
        log.warning("the plug-in %s %s is refused: %s", name, candidate.distribution.version, found)
    return InstalledPlugins(tuple(joined), tuple(refused))


def find_candidates() -> dict[str, _Candidate]:
    """Distribution's name -> what it offers, read from the metadata; nothing of it is imported."""
    found: dict[str, _Candidate] = {}
    known = metadata.entry_points()
    for group in GROUPS:
        for entry in known.select(group=group):
            if entry.dist is not None:
                found.setdefault(entry.dist.name, _Candidate(entry.dist)).entries.append(entry)
    return found


def plugin_components(group: str) -> tuple[type[Component], ...]:
    """The installed classes of a group."""
    return tuple(
        component for plugin in installed_plugins().joined for own, component in plugin.components if own == group
    )


def plugin_names() -> frozenset[str]:
    """The distributions that have joined here."""
    return frozenset(plugin.name for plugin in installed_plugins().joined)


def joined_members(annotations: Iterable[Any]) -> tuple[type[Component], ...]:
    """The classes that join a union by the annotations beside it."""
    return tuple(
        component
        for each in annotations
        if isinstance(each, JoinPlugins)
        for component in plugin_components(each.group)
    )


def union_members(union: Any) -> tuple[type[Any], ...]:
    """The members of an annotated union: those that it lists, then those that are installed."""
    members, *annotations = get_args(union)
    return (*get_args(members), *joined_members(annotations))


def plugin_of(component: type[Component]) -> Plugin | None:
    """The plug-in that a class is of; None: it is built in."""
    plugins = installed_plugins().joined
    return next((plugin for plugin in plugins if component in {each for _, each in plugin.components}), None)


def plugins_used(spec: object) -> tuple[Plugin, ...]:
    """The plug-ins that a spec has components of, in the order of their names."""
    if not installed_plugins().joined:
        return ()
    found = {plugin.name: plugin for each in _components(spec) if (plugin := plugin_of(type(each)))}
    return tuple(found[name] for name in sorted(found))


def plugin_identities(spec: object) -> dict[str, str]:
    """Name -> identity of the plug-ins that a spec uses."""
    return {plugin.name: plugin.identity for plugin in plugins_used(spec)}


def _components(value: object) -> Iterator[Component]:
    if isinstance(value, Component):
        yield value
    inner = vars(value).values() if isinstance(value, BaseModel) else value if isinstance(value, tuple) else ()
    for each in inner:
        yield from _components(each)


def _join(candidate: _Candidate, before: Iterable[Plugin]) -> Plugin | str:
    """The plug-in, or why it cannot join those that have."""
    taken = {pair for plugin in before for pair in _names(plugin.components)}
    components: list[tuple[str, type[Component]]] = []
    try:
        for entry in candidate.entries:
            union, base = GROUPS[entry.group]
            built_in = {(entry.group, _name(each)) for each in get_args(get_args(_load(union))[0])}
            component = entry.load()
            names = {name for group, name in taken | built_in if group == entry.group}
            if problem := find_problem(component, _load(base), names):
                return f"{entry.value} ({entry.group}): {problem}"
            components.append((entry.group, component))
            taken |= set(_names(components[-1:]))
        sha256 = digest_distribution(candidate.distribution, candidate.modules)
    except Exception as error:  # noqa: BLE001 - whatever its author wrote, the service starts
        return f"it cannot be imported: {type(error).__name__}: {error}"
    found = candidate.distribution
    return Plugin(found.name, found.version, sha256, tuple(components))


def find_problem(component: Any, base: type[Component], taken: Iterable[str] = ()) -> str | None:
    """Why a class cannot be a member of the union of `base`; None: it can. `taken` are names that are there."""
    return next(_problems(component, base, taken), None)


def _problems(component: Any, base: type[Component], taken: Iterable[str]) -> Iterator[str]:
    if not (isinstance(component, type) and issubclass(component, base)):
        yield f"it is no subclass of {base.__name__}"
        return
    if inspect.isabstract(component):
        yield f"it lacks {', '.join(sorted(component.__abstractmethods__))}"
    name = component.model_fields["name"]
    if get_origin(name.annotation) is not Literal or get_args(name.annotation) != (name.default,):
        yield 'its `name` is not declared as `name: Literal["…"] = "…"`'
    if name.default in {*taken, *getattr(base, "reserved_names", ())}:
        yield f"there is a {name.default!r} already"
    if not getattr(component, "summary", ""):
        yield "it has no `summary`"
    if "implementation" in inspect.get_annotations(base) and not _IMPORT_STRING.fullmatch(
        str(getattr(component, "implementation", ""))
    ):
        yield "its `implementation` is no import string, as in `package.module:function`"
    if issubclass(base, NamedComponent) and not getattr(component, "tasks", ()):
        yield "it has no `tasks`"
    if getattr(component, "monitored_series", None) is not getattr(base, "monitored_series", None):
        yield "a schedule that reads evaluations cannot be a plug-in"
    component.model_json_schema()  # raises where the class is not complete


def _names(components: Iterable[tuple[str, type[Component]]]) -> Iterator[tuple[str, str]]:
    for group, component in components:
        yield group, _name(component)


def _name(component: type[Component]) -> str:
    return str(component.model_fields["name"].default)


def _load(import_string: str) -> Any:
    module, _, name = import_string.partition(":")
    return getattr(import_module(module), name)
