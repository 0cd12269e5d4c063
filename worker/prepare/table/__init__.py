"""Reads CSV, TSV, JSONL and Parquet into the canonical form of a table."""
