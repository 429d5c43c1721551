"""Makes the tables in README.md and README.zh-CN.md from benchmarks/results.

    python benchmarks/table.py            # prints the table and writes it into both
    python benchmarks/table.py --check    # exit code 2 where a README has another table

A table is between <!-- benchmarks --> and <!-- /benchmarks -->. Its last column says who is ahead, ours or the peer.
"""

import json
from pathlib import Path

import harness

from extractive_qa.errors import QAError
from extractive_qa.text import shown
from utils.console import run

READMES = ("README.md", "README.zh-CN.md")  # English, Chinese
# in the order of the table: what is done, in English and in Chinese, and digits after the point of its figures
WORK = {
    "preparing": ("preparing training questions, no cache", "预处理训练问题，无缓存", 0),
    "spans_best": ("choosing the best answer from logits", "由 logits 选出最佳答案", 0),
    "spans_20_best": ("choosing the 20 best answers from logits", "由 logits 选出前 20 个答案", 0),
    "training": ("training, effective batch 16", "训练，有效批大小 16", 2),
    "answering": ("answering, fastest precision", "回答问题，最快精度", 1),
    "answering_fp32": ("answering in fp32", "回答问题，fp32", 1),
    "latency": ("one short question, warm", "单个短问题，已预热", 1),
    "cold_start": ("one question from a cold start", "冷启动回答一个问题", 2),
    "documents": ("asking 913 documents, fastest precision", "询问 913 篇文档，最快精度", 2),
    "documents_fp32": ("asking 913 documents in fp32", "询问 913 篇文档，fp32", 2),
    "documents_cold": ("asking 913 documents from a cold start", "冷启动询问 913 篇文档", 2),
}
UNITS = {"questions/s": "问题/秒", "windows/s": "窗口/秒", "ms": "毫秒", "s": "秒"}
HEADINGS = (
    ("work", "ours", "peer", "peer at its best", "ours / peer", "target", "met", "ours / best", "ahead of the best"),
    ("工作", "本项目", "对照", "对照的最佳设置", "本项目 / 对照", "目标", "达到", "本项目 / 最佳", "与最佳相比领先者"),
)
WORDS = (("yes", "no", "ours", "**peer**"), ("是", "否", "本项目", "**对照**"))


def read_results(folder: Path) -> list[dict]:
    """The results that are there, in the order of WORK."""
    paths = [folder / f"{name}.json" for name in WORK]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def table(results: list[dict], language: int) -> str:
    """The table in Markdown, each line ended. language: 0 English, 1 Chinese."""
    yes, no, ours, peer = WORDS[language]
    rows = [HEADINGS[language], ["---"] * len(HEADINGS[language])]
    for result in results:
        *titles, digits = WORK[result["benchmark"]]
        unit = result["unit"].split(" (")[0].split(",")[0]
        title = f"{titles[0]} ({unit})" if language == 0 else f"{titles[1]}（{UNITS[unit]}）"
        figures = [f"{result[side]:,.{digits}f}" for side in ("ours", "peer", "peer_best")]
        target = [f"{result['ratio']:.2f}", harness.target_of(result), yes if result["met"] else no]
        ahead = peer if harness.peer_is_ahead(result) else ours
        rows.append([title, *figures, *target, f"{result['ratio_best']:.2f}", ahead])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, readme_dir=(harness.PROJECT_ROOT, "where the two READMEs are"),
        check=(False, "write nothing, say whether the tables are up to date"),
    )  # fmt: skip
    results, outdated = read_results(args.results_dir), []
    for language, name in enumerate(READMES):
        if harness.put_table(args.readme_dir / name, "benchmarks", table(results, language), write=not args.check):
            outdated.append(name)
    print(table(results, 0), end="")
    if args.check and outdated:
        remedy = "Run: python benchmarks/table.py"
        raise QAError(f"{' and '.join(outdated)}: the table is not that of {shown(args.results_dir)}. {remedy}")


if __name__ == "__main__":
    run(main)
