"""Answers as a Parquet file. Nothing can be added to one, so answers are written as lines of JSON until all are there,
and turned into Parquet then, whole or not at all."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from extractive_qa.files.atomic import atomic_file

ROWS = 10_000  # questions in a group of rows: what is in memory at once


def schema_of(top_k: int, documents: bool):
    """The pyarrow.Schema of answers: the same for every file, also where a column is empty."""
    import pyarrow as pa

    document = pa.struct([("file", pa.string()), ("page", pa.int64()), ("line", pa.int64()), ("text", pa.string())])
    found = [("answer", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("probability", pa.float64())]
    found += [("document", document)] * documents
    asked = [("id", pa.string()), ("question", pa.string()), ("answerable", pa.float64())]
    return pa.schema([*asked, *found, *[("alternatives", pa.list_(pa.struct(found)))] * (top_k > 1)])


def write_parquet(lines: Path, target: Path, top_k: int, documents: bool) -> None:
    """Writes the answers that `lines` holds as lines of JSON to the file `target`. Raises OSError."""
    import pyarrow as pa
    import pyarrow.parquet

    schema = schema_of(top_k, documents)
    with atomic_file(target) as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for rows in rows_of(lines):
            writer.write_table(pa.Table.from_pylist(rows, schema))


def rows_of(lines: Path) -> Iterator[list[dict]]:
    with lines.open(encoding="utf-8") as file:
        while rows := [json.loads(line) for line in islice(file, ROWS)]:
            yield rows
