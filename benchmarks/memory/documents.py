"""How an index of documents grows with the text in the folder: time, memory, and what is kept.

    python benchmarks/memory/documents.py --eval_file dev_a.json     # 1, 10 and 100 MB; 8 minutes on one slow core

The paragraphs of the file are repeated until there is enough text, in files of about 10 kB. In each repetition one of
ten words is another, so the index has new words to learn. Each figure is of a fresh process: the index made, opened
again as nothing has changed, and opened after one file was added; and the median time in which 100 questions find their
10 passages. Writes documents_growth.json and its table in docs/SCALING.md.
"""

import random
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness
from harness import MB

from extractive_qa.documents.index import DocumentIndex
from extractive_qa.model.memory import process_memory
from utils.offline import PROJECT_ROOT

A_FILE = 10_000  # characters
QUESTIONS = 100


def varied(paragraphs: list[str]) -> Iterator[str]:
    """The paragraphs, again and again without end, each time with other words in some places."""
    for copy in count():
        chance = random.Random(copy)
        for paragraph in paragraphs:
            words = paragraph.split(" ")
            yield " ".join(f"{word}{copy}" if copy and chance.random() < 0.1 else word for word in words)


def write_folder(folder: Path, paragraphs: list[str], size: float) -> None:
    """Files of about A_FILE characters, `size` in all."""
    folder.mkdir()
    texts = varied(paragraphs)
    for number in range(round(size / A_FILE)):
        text = next(texts)
        while len(text) < A_FILE:
            text += "\n\n" + next(texts)
        (folder / f"{number:06}.txt").write_text(text[:A_FILE], encoding="utf-8")


def measure(folder: str, kept: str, questions: list[str]) -> dict:
    """Opens the index, and finds passages for the questions. Seconds, MB, milliseconds a question."""
    began = time.perf_counter()
    index = DocumentIndex(folder, Path(kept))
    seconds, peak = time.perf_counter() - began, process_memory(peak=True)
    finding = [1000 * harness.seconds_of(lambda question=question: index.best(question)) for question in questions]
    return {
        "seconds": seconds, "peak_mb": peak / MB, "passages": len(index),
        "read": index.read, "finding_ms": statistics.median(finding) if finding else None,
        "kept_mb": sum(path.stat().st_size for path in index.kept.rglob("*") if path.is_file()) / MB,
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, eval_file=harness.DEV_FILE, megabytes=([1, 10, 100], "sizes of the folder's text"),
        docs_dir=(PROJECT_ROOT / "docs", "folder of SCALING.md, which gets the table"),
    )  # fmt: skip
    examples = harness.read_questions(args.eval_file)
    paragraphs = list(dict.fromkeys(example["context"] for example in examples))
    questions = [example["question"] for example in random.Random(0).sample(examples, min(QUESTIONS, len(examples)))]
    rows = []
    for size in args.megabytes:
        with harness.temporary_folder() as place:
            folder, kept = place / "texts", place / "kept"
            write_folder(folder, paragraphs, size * MB)
            flags = {"folder": folder, "kept": kept}
            row = {"megabytes": size, "files": len(list(folder.iterdir()))}
            row["made"] = harness.in_fresh_process(__file__, **flags, questions=[])
            row["again"] = harness.in_fresh_process(__file__, **flags, questions=questions)
            (folder / "new.txt").write_text("The harbour of Quillport was opened in 1911.", encoding="utf-8")
            row["one_added"] = harness.in_fresh_process(__file__, **flags, questions=[])
            rows.append(row)
    heads = ["text", "files", "passages", "made in", "memory", "kept on disk", "opened again", "memory",
             "one file added", "memory", "10 passages found in"]  # fmt: skip
    cells = []
    for row in rows:
        made, again, added = row["made"], row["again"], row["one_added"]
        cells.append([
            f"{row['megabytes']} MB", f"{row['files']:,}", f"{made['passages']:,}", f"{made['seconds']:,.1f} s",
            f"{made['peak_mb']:,.0f} MB", f"{made['kept_mb']:,.0f} MB", f"{again['seconds']:.2f} s",
            f"{again['peak_mb']:,.0f} MB", f"{added['seconds']:.1f} s", f"{added['peak_mb']:,.0f} MB",
            f"{again['finding_ms']:.1f} ms",
        ])  # fmt: skip
    table = "".join(f"| {' | '.join(row)} |\n" for row in [heads, ["---"] * len(heads), *cells])
    harness.put_table(args.docs_dir / "SCALING.md", "documents", f"{harness.describe_cpu()}:\n\n{table}")
    print(table)
    harness.save(args, "documents_growth", unit="MB", rows=rows)


if __name__ == "__main__":
    harness.start(main, measure)
