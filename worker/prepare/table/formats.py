"""The functions that read a whole file of rows into a prepared dataset."""

from core.recipe.prepare import PrepareSpec
from worker.prepare.report import Report
from worker.prepare.source import InputFile
from worker.prepare.table.csv_source import CsvSource
from worker.prepare.table.encode import encode_table
from worker.prepare.table.jsonl_source import JsonlSource
from worker.prepare.table.parquet_source import ParquetSource
from worker.prepare.table.plan import plan_table
from worker.prepare.table.rows import TableRowSource
from worker.prepare.writer import DatasetWriter


def read_csv(source: InputFile, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    """Comma-separated values, or another of the accepted delimiters, which is found in the first rows."""
    _prepare_table(CsvSource(source, spec.options, report, "csv"), spec, out, report)


def read_tsv(source: InputFile, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    """Tab-separated values."""
    _prepare_table(CsvSource(source, spec.options, report, "tsv"), spec, out, report)


def read_jsonl(source: InputFile, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    """One flat JSON object a line."""
    if spec.options.text_field is not None or spec.options.tokenizer is not None:
        report.refuse("unknown_option", "text_field and tokenizer belong to a text, and this file is read as a table")
    _prepare_table(JsonlSource(source, spec.options, report), spec, out, report)


def read_parquet(source: InputFile, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    """A Parquet file of flat columns."""
    _prepare_table(ParquetSource(source, spec.options, report), spec, out, report)


def _prepare_table(rows: TableRowSource, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    plan = plan_table(rows, spec.options.columns, report)
    encode_table(rows, plan, out, report)
