"""Job files: YAML 1.2 or JSON read into plain data, and `key=value` changes from the command line."""

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from basin.errors import BadFile

INTEGER = re.compile(r"[-+]?[0-9]+$")


class CoreLoader(yaml.SafeLoader):
    """Plain values as YAML 1.2's core schema reads them.

    PyYAML follows YAML 1.1, where `5e-4` is a string, `no` is false, `1:30` is 90 and a date is an object: each of them
    would make the service refuse a valid job file with a misleading error.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - the name is PyYAML's

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """As in PyYAML, but a duplicate key is an error; in PyYAML the last value wins."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a single word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} occurs twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> float:
        """A decimal integer or a float. An infinite value is an error: JSON has none."""
        value = int(node.value) if INTEGER.match(node.value) else float(node.value)
        if not math.isfinite(value):
            raise yaml.MarkedYAMLError(problem=f"{node.value} is too large", problem_mark=node.start_mark)
        return value


for tag, pattern, first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", [*"-+.0123456789"]),
):
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)
CoreLoader.add_constructor("tag:yaml.org,2002:float", CoreLoader.construct_number)


def parse_document(text: str, name: str) -> Any:
    """The single YAML document in `text`. Raises BadFile with line and column when it cannot be parsed."""
    try:
        return CoreLoader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise BadFile(f"{where}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise BadFile(f"{name}: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise BadFile(f"{name}: nested too deeply") from error


def read_job(path: str) -> dict[str, Any]:
    """A job from a file, or from standard input when the path is '-'. Raises BadFile."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{path} is not a text file") from error
    return parse_job(text, path)


def parse_job(text: str, name: str) -> dict[str, Any]:
    """The job in `text`, YAML or JSON: JSON is a subset of YAML 1.2. Raises BadFile."""
    data = parse_document(text, name)
    if not isinstance(data, dict):
        raise BadFile(f"{name}: a job is a mapping with model, data, optimizer …; this is {describe_type(data)}")
    try:
        json.dumps(data)
    except (TypeError, ValueError) as error:
        raise BadFile(f"{name}: {error}") from error
    return data


def describe_type(data: Any) -> str:
    """The type of a document that is not a mapping, in words for an error message."""
    return {type(None): "empty", list: "a list", str: "text"}.get(type(data), "a single value")


def with_changes(spec: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A copy of the spec with changes such as `optimizer.lr=0.01`; values are parsed as YAML. Raises BadFile."""
    changed: dict[str, Any] = json.loads(json.dumps(spec))
    for change in changes:
        dotted, separator, text = change.partition("=")
        if not separator or not all(dotted.split(".")):
            raise BadFile(f"--set takes key=value, as in optimizer.lr=0.01; this was {change!r}")
        *path, last = dotted.split(".")
        at = changed
        for number, part in enumerate(path, start=1):
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise BadFile(f"--set {change}: {'.'.join(path[:number])} is not a mapping in this job")
        at[last] = parse_document(text, f"--set {dotted}")
    return changed
