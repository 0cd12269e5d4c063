"""Tables through the real process: no file opens after the start, one thread, 2 GB of address space."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.prepare import Prepared, prepare_confined, prepare_here

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
HEADER = "name,day,x\n"
ROWS = "".join(
    f"caf\u00e9 {number % 5},2024-02-{1 + number % 29:02d}T10:00:00+02:00,{number}.5\n" for number in range(500)
)


def parquet_bytes() -> bytes:
    made = io.BytesIO()
    zoned = pa.array(range(1000), pa.timestamp("s", "Asia/Tokyo"))
    columns = {"when": zoned, "x": np.arange(1000) / 7, "name": [f"n{number % 9}" for number in range(1000)]}
    pq.write_table(pa.table(columns), made, compression="zstd")
    return made.getvalue()


CONTENTS: dict[str, tuple[bytes, str, dict[str, Any]]] = {
    "penguins": (PENGUINS.read_bytes(), "csv", {}),
    "utf-8": ((HEADER + ROWS).encode(), "csv", {}),
    "latin-1": ((HEADER + ROWS).encode("latin-1"), "csv", {"encoding": "latin-1"}),
    "cp1252": ((HEADER + ROWS).encode("cp1252"), "csv", {"encoding": "cp1252"}),
    "utf-16": ((HEADER + ROWS).encode("utf-16"), "csv", {"encoding": "utf-16"}),
    "tsv": ((HEADER + ROWS).replace(",", "\t").encode(), "tsv", {}),
    "jsonl": (
        "\n".join(json.dumps({"a": n / 3, "b": f"k{n % 4}", "c": n % 2 == 0}) for n in range(500)).encode(),
        "jsonl",
        {},
    ),
    "parquet": (parquet_bytes(), "parquet", {}),
    "whole numbers far apart": (("a,b\n" + "".join(f"{n * 1_000_003},{n}\n" for n in range(300))).encode(), "csv", {}),
    "corrected": (PENGUINS.read_bytes(), "csv", {"columns": {"year": {"kind": "category"}}, "missing": ["2007"]}),
}


def confined(tmp_path: Path, name: str) -> tuple[Path, Prepared]:
    content, format_name, options = CONTENTS[name]
    path = tmp_path / "input"
    path.write_bytes(content)
    return path, prepare_confined(path, tmp_path, format=format_name, options=options)


@pytest.mark.parametrize("name", CONTENTS)
def test_every_format_is_the_same_inside_and_outside(tmp_path: Path, name: str) -> None:
    _, format_name, options = CONTENTS[name]
    path, made = confined(tmp_path, name)
    assert made.ended is not None, made.stderr
    assert made.ended["error"] is None, made.ended["error"]
    here = prepare_here(path, tmp_path / "here", format=format_name, options=options)
    assert made.manifest() == here
    assert made.ended["results"]["version"] == here.version()


def test_pandas_beside_us_is_not_loaded(tmp_path: Path) -> None:
    """Where it is installed, its files cannot be opened after the start."""
    (tmp_path / "pandas.py").write_text("raise PermissionError(13, 'Permission denied')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "from worker.prepare.preload import preload_parsers; preload_parsers(); "
        "import numpy, pyarrow; print(pyarrow.array(numpy.arange(3.0)).sum())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "3.0\n"), done.stderr


BAD = {
    "ragged after blank lines": (b'a,b\n\n"x\ny",1\n1\n', "csv", "ragged", 5),
    "open quote": (b'a,b\n1,2\n1,"x\n', "csv", "open_quote", 3),
    "late latin-1": (b"a,b\n" + b"1,2\n" * 1000 + b"caf\xe9,2\n", "csv", "encoding", 1002),
    "infinite": (b"a,b\n1,2\n1e400,2\n", "csv", "not_finite", 3),
    "long cell": (b"a,b\n1," + b"x" * (20 << 20), "csv", "cell_too_long", 2),
    "nested": (b'{"a":1}\n{"a":[1]}\n', "jsonl", "nested", 2),
    "damaged": (parquet_bytes()[:-30], "parquet", "bad_parquet", None),
}


@pytest.mark.parametrize("name", BAD)
def test_places_of_errors_are_found_inside_too(tmp_path: Path, name: str) -> None:
    content, format_name, code, row = BAD[name]
    (tmp_path / "input").write_bytes(content)
    made = prepare_confined(tmp_path / "input", tmp_path, format=format_name)
    assert made.ended is not None, made.stderr
    assert made.ended["error"]["code"] == "bad_file", made.ended
    assert [(error["code"], error["row"]) for error in made.ended["error"]["errors"]] == [(code, row)]
    assert not (made.folder / "manifest.json").exists()


def test_a_million_distinct_strings_fit_into_the_limits(tmp_path: Path) -> None:
    """They are a text, after the first 10,000; nothing grows with them."""
    path = tmp_path / "input"
    path.write_text("id,x\n" + "".join(f"key-{number:09d},{number % 1000}\n" for number in range(1_000_000)))
    made = prepare_confined(path, tmp_path, format="csv")
    assert made.ended is not None, made.stderr
    assert made.ended["error"] is None
    manifest = made.manifest()
    assert [(column.name, column.kind) for column in manifest.columns] == [("id", "text"), ("x", "number")]
    assert manifest.examples == 1_000_000
    assert manifest.columns[1].mean == 499.5


def test_the_most_columns_fit_into_the_limits(tmp_path: Path) -> None:
    path = tmp_path / "input"
    header = ",".join(f"c{number}" for number in range(4096))
    path.write_text(header + "\n" + "".join(",".join([str(row)] * 4096) + "\n" for row in range(120)))
    made = prepare_confined(path, tmp_path, format="csv")
    assert made.ended is not None, made.stderr
    assert made.ended["error"] is None, made.ended["error"]
    assert {column.mean for column in made.manifest().columns} == {59.5}
