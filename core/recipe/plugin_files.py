"""The digest of an installed distribution: equal for equal code, wherever and however it is installed."""

import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path


def digest_distribution(distribution: metadata.Distribution, modules: Iterable[str]) -> str:
    """SHA-256 over the paths and digests of its files, `.dist-info` apart, which says how it was installed.

    The digests are those of its RECORD. An editable installation has none of its code there: then the files of the
    packages that `modules` are in are read.
    """
    recorded = () if is_editable(distribution) else _recorded_files(distribution)
    lines = sorted(recorded or _source_files({module.partition(".")[0] for module in modules}))
    return sha256("\n".join(f"{path} {digest}" for path, digest in lines).encode()).hexdigest()


def is_editable(distribution: metadata.Distribution) -> bool:
    """Whether its code is in the folder that it was installed from."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def _recorded_files(distribution: metadata.Distribution) -> list[tuple[str, str]]:
    return [
        (path.as_posix(), path.hash.value)
        for path in distribution.files or ()
        if path.hash and not path.parts[0].endswith(".dist-info")
    ]


def _source_files(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    for package in packages:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            files = (path for path in Path(folder).rglob("*") if path.is_file() and path.parent.name != "__pycache__")
            for path in files:
                yield f"{package}/{path.relative_to(folder).as_posix()}", sha256(path.read_bytes()).hexdigest()
        if spec and spec.origin and not spec.submodule_search_locations:
            yield package, sha256(Path(spec.origin).read_bytes()).hexdigest()
