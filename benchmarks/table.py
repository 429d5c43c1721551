"""Makes the tables in README.md and README.zh-CN.md from benchmarks/results.

    python benchmarks/table.py            # prints the table and writes it into both
    python benchmarks/table.py --check    # exit code 2 where a README has another table

A table stands between <!-- benchmarks --> and <!-- /benchmarks -->.
"""

import argparse
import json
from pathlib import Path

from pairs import PROJECT_ROOT, RESULTS_DIR, sign

from extractive_qa.errors import QAError
from extractive_qa.files.reading import with_table
from extractive_qa.text import shown
from utils import console

BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->"
# in the order of the table: what is done, in English and in Chinese, and digits after the point of its figures
WORK = {
    "preparing": ("preparing training questions, cold", "预处理训练问题，无缓存", 0),
    "spans_best": ("choosing the best answer from logits", "由 logits 选出最佳答案", 0),
    "spans_20_best": ("choosing the 20 best answers from logits", "由 logits 选出前 20 个答案", 0),
    "training": ("training, effective batch 16", "训练，有效批大小 16", 2),
    "answering": ("answering, fastest precision", "回答问题，最快精度", 1),
    "answering_fp32": ("answering in fp32", "回答问题，fp32", 1),
    "latency": ("one short question, warm", "单个短问题，已预热", 1),
    "cold_start": ("one question from a cold start", "冷启动回答一个问题", 2),
}
UNITS = {
    "questions/s": ("questions/s", "问题/秒"),
    "windows/s": ("windows/s", "窗口/秒"),
    "ms": ("ms", "毫秒"),
    "s": ("s", "秒"),
}
HEADINGS = (
    ("work", "ours", "peer", "peer at its best", "ours / peer", "target", "met"),
    ("工作", "本项目", "对照", "对照的最佳设置", "本项目 / 对照", "目标", "达到"),
)
YES_NO = (("yes", "no"), ("是", "否"))
READMES = ("README.md", "README.zh-CN.md")  # English, Chinese


def read_results(folder: Path) -> list[dict]:
    """The results that are there, in the order of WORK."""
    paths = [folder / f"{name}.json" for name in WORK]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def table(results: list[dict], language: int) -> str:
    """The table in Markdown, each line ended. language: 0 English, 1 Chinese."""
    rows = [HEADINGS[language], ["---"] * len(HEADINGS[language])]
    for result in results:
        *titles, digits = WORK[result["benchmark"]]
        unit = UNITS[result["unit"].split(" (")[0].split(",")[0]][language]
        figures = [f"{result[side]:,.{digits}f}" for side in ("ours", "peer", "peer_best")]
        ratio = f"{result['ratio']:.2f}"
        target = f"{sign(result)} {result['target']:g}"
        met = YES_NO[language][0 if result["met"] else 1]
        brackets = ("{} ({})", "{}（{}）")[language]
        rows.append([brackets.format(titles[language], unit), *figures, ratio, target, met])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--results_dir", type=Path, default=RESULTS_DIR, help="where the results are")
    parser.add_argument("--readme_dir", type=Path, default=PROJECT_ROOT, help="where the two READMEs are")
    parser.add_argument("--check", action="store_true", help="write nothing, say whether the tables are up to date")
    args = parser.parse_args(argv)
    results = read_results(args.results_dir)
    outdated = []
    for language, name in enumerate(READMES):
        text = (args.readme_dir / name).read_text(encoding="utf-8")
        new = with_table(text, table(results, language), name, BEGIN, END)
        if new != text:
            outdated.append(name)
            if not args.check:
                (args.readme_dir / name).write_text(new, encoding="utf-8", newline="\n")
    print(table(results, 0), end="")
    if args.check and outdated:
        raise QAError(
            f"{' and '.join(outdated)}: the table is not that of {shown(args.results_dir)}. "
            "Run: python benchmarks/table.py"
        )


if __name__ == "__main__":
    console.run(main)
