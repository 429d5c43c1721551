"""How time and memory of answering grow with the length of a context and with the number of questions.

    python benchmarks/memory/answering.py --eval_file dev_a.json              # both, 20 minutes on 2 CPU cores
    python benchmarks/memory/answering.py --only scaling

scaling            One question of contexts of 1 to 1,000 kB, and 100, 1,000 and all questions of their own paragraphs,
                   with models/sample in PyTorch's fp32. Writes scaling.json and the table in docs/SCALING.md
evaluation_memory  5,000 and 50,000 questions, the real ones repeated over other contexts, and a tiny random model, as
                   what grows is not the model: Reader.answer_all, fed one by one, its 20 best answers written to a file
                   and the best one's text kept; evaluate.py, which reads all questions first; `predict.py batch`

Each figure is of a fresh process, on the CPU.
"""

import json
import runpy
import shutil
import sys
from math import log
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness
from harness import MB

from extractive_qa.data.examples import read_examples
from extractive_qa.model.memory import process_memory
from extractive_qa.reader import Reader, count_windows
from utils.offline import PROJECT_ROOT, SAMPLE_MODEL_DIR


def measure(kind: str, model_dir: str, file: str, count: int, output: str) -> dict:
    """Time, or memory in MB, of answering in this process."""
    if kind in ("kilobytes", "questions"):
        return measure_scaling(kind, Path(model_dir), read_examples(file), count)
    found = {"questions": count}
    if kind == "answers":
        reader = Reader(model_dir, "cpu", "no")
        found["kept"] = answer_one_by_one(reader, read_examples(file), count, Path(output)) / MB
    else:
        script, before = runpy.run_path(str(PROJECT_ROOT / kind), run_name="measured"), process_memory()
        flags = {"model_dir": model_dir, "device": "cpu", "mixed_precision": "no"}
        if kind == "evaluate.py":
            examples = read_examples(file)
            found["reading"] = (process_memory() - before) / MB
            del examples
            argv = harness.words_of(flags | {"eval_file": file, "output_dir": output})
        else:
            argv = ["batch", *harness.words_of(flags | {"input": file, "output": output})]
        found["seconds"] = harness.seconds_of(lambda: script["main"](argv))
    return found | {"peak": process_memory(peak=True) / MB}


def measure_scaling(size: str, model_dir: Path, examples: list[dict], count: int) -> dict:
    """Of one question of `count` kB, or of `count` questions."""
    if size == "kilobytes":
        text = " ".join(dict.fromkeys(example["context"] for example in examples))
        text = f"{text} " * (1 + 1000 * count // len(text))
        examples = [examples[0] | {"context": text[: 1000 * count]}]
    examples = examples[:count]
    reader = Reader(model_dir, "cpu", "no", backend="torch")
    reader.answer(examples[0]["question"], examples[0]["context"][:500])  # warm
    before = process_memory()
    seconds = harness.seconds_of(lambda: sum(1 for _ in reader.answer_all(examples)))
    peak = process_memory(peak=True)
    windows = int(count_windows(model_dir, examples).sum())
    sizes = {"kilobytes": count if size == "kilobytes" else None, "questions": len(examples), "windows": windows}
    return sizes | {"seconds": seconds, "peak_mb": peak / MB, "added_mb": max(0, peak - before) / MB}


def answer_one_by_one(reader: Reader, examples: list[dict], count: int, output: Path) -> float:
    """Bytes of the best answers' texts, which are kept by id, as evaluate.py keeps them."""
    predictions = {}
    with output.open("w", encoding="utf-8") as nbest:
        for number, best in enumerate(reader.answer_all(harness.repeat_questions(examples, count), 20)):
            predictions[f"{number:024d}"] = best[0]["text"]
            nbest.write(json.dumps(best) + "\n")
    return sys.getsizeof(predictions) + sum(sys.getsizeof(k) + sys.getsizeof(v) for k, v in predictions.items())


def growth(lines: list[dict], size: str) -> float:
    """The exponent with which time grows from the smallest of `lines` that takes a second to the largest."""
    first, last = next((line for line in lines[:-1] if line["seconds"] > 1), lines[-2]), lines[-1]
    return log(last["seconds"] / first["seconds"]) / log(last[size] / first[size])


def table(result: dict) -> str:
    """The table of docs/SCALING.md, of a result of scaling."""
    text = f"{result['device']}:\n\n| | windows | seconds | ms a window | peak memory | added by answering |\n"
    text += "| --- | --- | --- | --- | --- | --- |\n"
    for line in result["contexts"] + result["questions"]:
        size = f"a context of {line['kilobytes']:,} kB" if line["kilobytes"] else f"{line['questions']:,} questions"
        speed = f"{line['seconds']:.2f} | {1000 * line['seconds'] / line['windows']:.1f}"
        memory = f"{line['peak_mb']:,.0f} MB | {line['added_mb']:,.0f} MB"
        text += f"| {size} | {line['windows']:,} | {speed} | {memory} |\n"
    of = result["time_exponents"]
    return f"{text}\nExponents of time: {of['context']:.2f} with length, {of['questions']:.2f} with questions.\n"


def scaling(args, folder: Path) -> None:
    given = {"model_dir": args.model_dir, "file": args.eval_file, "output": folder}
    contexts, questions = (
        [harness.in_fresh_process(__file__, kind=size, count=count, **given) for count in getattr(args, size)]
        for size in ("kilobytes", "questions")
    )
    result = {
        "contexts": contexts, "questions": questions, "device": harness.describe_cpu(),
        "time_exponents": {"context": growth(contexts, "kilobytes"), "questions": growth(questions, "questions")},
    }  # fmt: skip
    harness.put_table(args.docs_dir / "SCALING.md", "scaling", table(result))
    print(table(result))
    harness.save(args, "scaling", **result)


def evaluation_memory(args, folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertForQuestionAnswering(config).save_pretrained(folder / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(SAMPLE_MODEL_DIR / name, folder / "model" / name)
    examples = harness.read_questions(args.eval_file)
    kinds = {"answers": [], "evaluate.py": [], "predict.py": []}
    for count in args.many:
        many = list(harness.repeat_questions(examples, count))
        files = {
            "answers": args.eval_file,  # repeated there
            "evaluate.py": harness.write_squad(folder / f"{count}.json", many),
            "predict.py": harness.write_lines(folder / f"{count}.jsonl", many, "id", "question", "context"),
        }
        for kind, file in files.items():
            case = {"kind": kind, "model_dir": folder / "model", "file": file, "count": count}
            output = folder / f"{kind}.{count}.jsonl"
            kinds[kind].append(harness.in_fresh_process(__file__, **case, output=output))

    print("resident memory in MB")
    peaks = zip(*([f"{row['peak']:,.0f}" for row in rows] for rows in kinds.values()), strict=True)
    kept = [f"{row['kept']:,.1f}" for row in kinds["answers"]]
    harness.print_table(
        ["questions", "kept texts", *(f"peak, {kind}" for kind in kinds)],
        [[*row[:2], *row[2]] for row in zip(args.many, kept, peaks, strict=True)],
    )

    def grown(kind: str, part: str) -> float:
        """Bytes a question."""
        return MB * (kinds[kind][-1][part] - kinds[kind][0][part]) / (args.many[-1] - args.many[0])

    growing = {kind: grown(kind, "peak") for kind in kinds}
    growing |= {"of_them_kept": grown("answers", "kept"), "of_them_reading": grown("evaluate.py", "reading")}
    harness.save(args, "evaluation_memory", unit="MB", **kinds, bytes_a_question=growing)


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, eval_file=harness.DEV_FILE, model_dir=(SAMPLE_MODEL_DIR, "what answers in scaling"), only="",
        kilobytes=([1, 10, 100, 1000], "lengths of contexts"), questions=([100, 1000, 4961], "numbers of questions"),
        many=([5_000, 50_000], "numbers of questions in evaluation_memory"),
        docs_dir=(PROJECT_ROOT / "docs", "folder of SCALING.md, which gets the table of scaling"),
    )  # fmt: skip
    harness.run_parts(args, {"scaling": scaling, "evaluation_memory": evaluation_memory})


if __name__ == "__main__":
    harness.start(main, measure)
