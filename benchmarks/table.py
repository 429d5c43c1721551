"""Makes the tables in docs/RESULTS.md from benchmarks/results, one for each kind of processor.

    python benchmarks/table.py            # prints them and writes them there
    python benchmarks/table.py --check    # exit code 2 where the page has another table

They are between <!-- benchmarks --> and <!-- /benchmarks -->. Their last column says who is ahead, ours or the peer.
"""

import json
from pathlib import Path

import harness

from extractive_qa.errors import QAError
from extractive_qa.text import shown
from utils.console import run

# in the order of the table: what is done, and digits after the point of its figures
WORK = {
    "preparing": ("preparing training questions, no cache", 0),
    "spans_best": ("choosing the best answer from logits", 0),
    "spans_20_best": ("choosing the 20 best answers from logits", 0),
    "training": ("training, effective batch 16", 2),
    "answering": ("answering, fastest precision", 1),
    "answering_fp32": ("answering in fp32", 1),
    "latency": ("one short question, warm", 1),
    "cold_start": ("one question from a cold start", 2),
    "documents": ("asking 913 documents, fastest precision", 2),
    "documents_fp32": ("asking 913 documents in fp32", 2),
    "documents_cold": ("asking 913 documents from a cold start", 2),
}
# harness.processor_kind
KINDS = {
    "bf16": "With bf16 (AVX512-BF16 or AMX; VNNI too)",
    "vnni": "With VNNI, without bf16",
    "avx2": "AVX2 alone (no VNNI, no bf16)",
}
HEADINGS = (
    "work", "ours", "peer", "peer at its best", "ours / peer", "target", "met", "ours / best", "ahead of the best",
)  # fmt: skip


def read_results(folder: Path) -> list[dict]:
    """The results that are there, in the order of WORK."""
    paths = [folder / f"{name}.json" for name in WORK]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def tables(folder: Path) -> str:
    """The tables of all kinds of processor that have results, each below what it was measured on."""
    made = []
    for kind, words in KINDS.items():
        if results := read_results(folder / kind):
            names = " and ".join(dict.fromkeys(result["device"].split(",")[0] for result in results))
            made.append(f"**{words}**, {names.removeprefix('CPU (')}:\n\n{table(results)}")
    return "\n".join(made)


def table(results: list[dict]) -> str:
    """The table in Markdown, each line ended."""
    rows = [HEADINGS, ["---"] * len(HEADINGS)]
    for result in results:
        title, digits = WORK[result["benchmark"]]
        unit = result["unit"].split(" (")[0].split(",")[0]
        figures = [f"{result[side]:,.{digits}f}" for side in ("ours", "peer", "peer_best")]
        target = [f"{result['ratio']:.2f}", harness.target_of(result), "yes" if result["met"] else "no"]
        ahead = "**peer**" if harness.peer_is_ahead(result) else "ours"
        rows.append([f"{title} ({unit})", *figures, *target, f"{result['ratio_best']:.2f}", ahead])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, page=(harness.PROJECT_ROOT / "docs" / "RESULTS.md", "where the table is"),
        check=(False, "write nothing, say whether the table is up to date"),
    )  # fmt: skip
    made = tables(args.results_dir)
    print(made, end="")
    if harness.put_table(args.page, "benchmarks", made, write=not args.check) and args.check:
        remedy = "Run: python benchmarks/table.py"
        raise QAError(f"{shown(args.page)}: the table is not that of {shown(args.results_dir)}. {remedy}")


if __name__ == "__main__":
    run(main)
