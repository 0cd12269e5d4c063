"""What preparing a table costs, against the bare parser of the same file: CSV, JSONL and Parquet of the same rows.

    python -m bench.prepare [--megabytes 100]

One thread of one process; CPU seconds, so that other processes change little. The table has 15 columns: eight real
numbers, two whole ones, a category, a boolean, a date, a text and a target. MB are those of the CSV in all formats.
Aims: 50 MB/s of CSV, 200 MB/s of Parquet. Compare the ratios, not the times.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from core.recipe.prepare import PrepareSpec
from worker.prepare.formats import load_reader
from worker.prepare.report import Report
from worker.prepare.source import InputFile
from worker.prepare.table.rows import BLOCK_BYTES
from worker.prepare.writer import DatasetWriter

CITIES = ("Berlin", "Lisbon", "Madrid", "Oslo", "Paris", "Rome", "Vienna")
NAMES = (*(f"x{number}" for number in range(8)), "age", "code", "city", "member", "day", "note", "y")
FIRST_DAY = date(2010, 1, 1)


def draw_rows(seed: int) -> Iterator[list[str]]:
    """Rows of cells, without end; 2 % of one column are missing."""
    draw = random.Random(seed)
    number = 0
    while True:
        number += 1
        reals = [f"{draw.gauss(0, 1):.6f}" for _ in range(8)]
        if draw.random() < 0.02:
            reals[3] = "NA"
        whole = [str(draw.randint(18, 90)), str(draw.randint(1, 100_000))]
        day = str(FIRST_DAY + timedelta(days=draw.randrange(5000)))
        yield [
            *reals,
            *whole,
            draw.choice(CITIES),
            draw.choice(("true", "false")),
            day,
            f"row {number}",
            draw.choice("abc"),
        ]


def write_table(folder: Path, megabytes: float) -> dict[str, Path]:
    """The same rows as CSV, JSONL and Parquet."""
    paths = {name: folder / f"table.{name}" for name in ("csv", "jsonl", "parquet")}
    with paths["csv"].open("w") as file:
        file.write(",".join(NAMES) + "\n")
        for row in draw_rows(0):
            file.write(",".join(row) + "\n")
            if file.tell() > megabytes * 1e6:
                break
    table = pyarrow.csv.read_csv(paths["csv"], read_options=pyarrow.csv.ReadOptions(use_threads=False))
    pyarrow.parquet.write_table(table, paths["parquet"], compression="zstd")
    with paths["jsonl"].open("w") as file:
        file.writelines(
            json.dumps(row, default=str) + "\n" for batch in table.to_batches() for row in batch.to_pylist()
        )
    return paths


def parse_bare(path: Path) -> None:
    """What pyarrow needs to read the file with the types that it guesses, block by block."""
    if path.suffix == ".csv":
        options = pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
        for _ in pyarrow.csv.open_csv(path, read_options=options):
            pass
    elif path.suffix == ".jsonl":
        pyarrow.json.read_json(path, read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=BLOCK_BYTES))
    else:
        for _ in pyarrow.parquet.ParquetFile(path).iter_batches(use_threads=False):
            pass


def prepare_file(path: Path) -> None:
    """All that the prepare process does with the file, without its isolation: both passes, shards, digests, fsync."""
    name: Any = path.suffix.removeprefix(".")
    spec = PrepareSpec.model_validate_json(json.dumps({"dataset": "ds_" + "0" * 26, "format": name}))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, path.open("rb") as file:
        source, report = InputFile(file.fileno()), Report(lambda _kind, _fields: None)
        load_reader(name, spec.options)(source, spec, DatasetWriter(Path(folder), source, spec, report), report)


def cpu_seconds(work: Callable[[Path], None], path: Path) -> float:
    began = time.process_time()
    work(path)
    return time.process_time() - began


def measure_tables(megabytes: float) -> dict[str, tuple[float, float]]:
    """Format -> (MB of CSV in one CPU second prepared, the same by the bare parser); the best of three, alternating."""
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_table(Path(folder), megabytes)
        size = paths["csv"].stat().st_size / 1e6
        found = {}
        for name, path in paths.items():
            pairs = [(cpu_seconds(prepare_file, path), cpu_seconds(parse_bare, path)) for _ in range(3)]
            prepared, bare = (min(seconds) for seconds in zip(*pairs, strict=True))
            found[name] = size / prepared, size / bare
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100)
    for name, (prepared, bare) in measure_tables(parser.parse_args().megabytes).items():
        print(f"{name:8} {prepared:6.0f} MB/s prepared   {bare:6.0f} MB/s parsed   ratio {prepared / bare:.2f}")


if __name__ == "__main__":
    main()
