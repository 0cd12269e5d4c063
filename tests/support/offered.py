"""What the package pytorch-optimizer offers, read off its classes; writes the table that the recipe checks jobs by.

python -m tests.support.offered     after its release has changed: then read the difference, and mend what is refused
"""

import inspect
import json
import types
from collections.abc import Callable, Iterator
from importlib import import_module, resources
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

SCALARS: dict[object, str] = {float: "number", int: "integer", bool: "boolean", str: "string", types.NoneType: "null"}
OURS = {"params", "lr", "kwargs", "maximize", "foreach", "fused", "capturable", "differentiable", "process_group"}
"""Arguments that are the engine's, or that would turn training upside down."""
TABLE = Path(str(resources.files("core.recipe.optimizers") / "pytorch_optimizer.json"))


def table() -> dict[str, dict[str, Any]]:
    """The table as it stands in the recipe."""
    found: dict[str, dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def classes() -> dict[str, Callable[..., Any]]:
    """Every optimizer that the package loads by name."""
    package: Any = import_module("pytorch_optimizer")
    return {name: package.load_optimizer(name) for name in package.get_supported_optimizers()}


def kinds(annotation: Any) -> Iterator[Any]:
    """The forms that an option may take, of those that JSON can write."""
    if annotation in SCALARS:
        yield SCALARS[annotation]
    elif get_origin(annotation) in {Union, types.UnionType}:
        for each in get_args(annotation):
            yield from kinds(each)
    elif get_origin(annotation) is Literal:
        yield {"one of": list(get_args(annotation))}
    elif get_origin(annotation) is tuple and ... not in get_args(annotation):
        parts = [list(kinds(each)) for each in get_args(annotation)]
        if all(parts):
            yield parts


def options(kind: Callable[..., Any]) -> dict[str, Any]:
    """{option: {"default": …, "kinds": […]}} of what JSON can write."""
    found = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        accepted = list(kinds(parameter.annotation))
        plain = type(parameter.default) in {*SCALARS, tuple}
        if name not in OURS and not name.startswith("compile") and accepted and plain:
            found[name] = {"default": parameter.default, "kinds": accepted}
    return found


def accepted(refused: dict[str, str]) -> dict[str, Any]:
    """{optimizer: {"class": …, "options": …}} of all that are not refused."""
    return {
        name: {"class": kind.__name__, "options": options(kind)}
        for name, kind in sorted(classes().items())
        if name not in refused
    }


def write(refused: dict[str, str]) -> None:
    """One optimizer a line."""
    parts = []
    for key, part in (("refused", dict(sorted(refused.items()))), ("accepted", accepted(refused))):
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in part.items()]
        parts.append(f'"{key}": {{\n' + ",\n".join(lines) + "\n}")
    TABLE.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write(table()["refused"])
