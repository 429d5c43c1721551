"""Is the memory of an evaluation flat in the number of questions? 5,000 and 50,000 of them, in fresh processes.

    python benchmarks/evaluation_memory.py --eval_file ../shared/squad/dev_a.json

The real questions are repeated, each time over other contexts. A tiny random model answers them: what grows with the
questions is not the model. Two things are measured:

answers      Reader.answer_all fed one question at a time, its 20 best answers written to a file as evaluate.py does it,
             the best one's text kept by id: resident memory on the way, and the size of what is kept
evaluate.py  the whole script, which reads all questions first

Writes benchmarks/results/evaluation_memory.json. Takes about 10 minutes on 2 CPU cores.
"""

import argparse
import json
import runpy
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import PROJECT_ROOT, SAMPLE_MODEL_DIR, go_offline

go_offline()

from fresh import in_fresh_process, repeat, write_squad
from pairs import DEV_FILE, RESULTS_DIR, cpu, own_versions

from extractive_qa.files.reading import make_room
from utils import console

COUNTS = (5_000, 50_000)
FIRST = 2_000  # questions, after which all that is loaded once is loaded
POINTS = 10  # of the curve
N_BEST = 20
MB = 1e6


def make_tiny_model(folder: Path) -> Path:
    """A random BERT with one layer of 32, with the sample's tokenizer."""
    import shutil

    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertForQuestionAnswering(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(SAMPLE_MODEL_DIR / name, folder / name)
    return folder


def measure_answers(model_dir: str, file: str, count: int, output: str) -> dict:
    """Resident memory in MB after FIRST questions and at POINTS places, and what the kept texts take."""
    import torch

    from extractive_qa.data.examples import read_examples
    from extractive_qa.model.devices import used_memory
    from extractive_qa.reader import Reader

    reader, device = Reader(model_dir, "cpu", "no"), torch.device("cpu")
    stream = repeat(read_examples(file), count)
    curve, predictions = [], {}
    with Path(output).open("w", encoding="utf-8") as nbest:
        for number, best in enumerate(reader.answer_all(stream, N_BEST), 1):
            predictions[f"{number:024d}"] = best[0]["text"]
            nbest.write(json.dumps(best) + "\n")
            if number in (FIRST, count) or number % (count // POINTS) == 0:
                curve.append([number, used_memory(device) / MB])
    kept = sys.getsizeof(predictions) + sum(sys.getsizeof(k) + sys.getsizeof(v) for k, v in predictions.items())
    return {"questions": count, "curve": curve, "peak": used_memory(device, peak=True) / MB, "kept": kept / MB}


def measure_script(model_dir: str, file: str, count: int, output: str) -> dict:
    """The peak in MB of evaluate.py with `count` questions, and what reading them took of it."""
    import torch

    from extractive_qa.model.devices import used_memory

    device = torch.device("cpu")
    evaluate = runpy.run_path(str(PROJECT_ROOT / "evaluate.py"), run_name="measured")
    Path(output).mkdir()
    flags = ("--model_dir", model_dir, "--eval_file", file, "--output_dir", output, "--device", "cpu",
             "--mixed_precision", "no")  # fmt: skip
    before = used_memory(device) / MB
    examples = evaluate["read_examples"](file)
    read = used_memory(device) / MB - before
    assert len(examples) == count, len(examples)
    del examples
    evaluate["main"](list(flags))
    return {"questions": count, "reading": read, "peak": used_memory(device, peak=True) / MB}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--eval_file", type=Path, default=DEV_FILE, help="real questions to repeat")
    parser.add_argument("--output", type=Path, default=RESULTS_DIR / "evaluation_memory.json", help="result file")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    make_room(args.output, "--output")
    if args.part:
        kind = args.part.pop("kind")
        print(json.dumps((measure_answers if kind == "answers" else measure_script)(**args.part)))
        return

    from extractive_qa.data.examples import read_examples

    answers, script = [], []
    with tempfile.TemporaryDirectory() as folder:
        model_dir = str(make_tiny_model(Path(folder, "model")))
        for count in COUNTS:
            case = {"model_dir": model_dir, "count": count}
            few, file = str(args.eval_file), Path(folder, f"{count}.json")
            target = str(Path(folder, f"answers_{count}"))
            answers.append(in_fresh_process(__file__, kind="answers", file=few, output=target, **case))
            write_squad(file, repeat(read_examples(args.eval_file), count))
            target = str(Path(folder, f"script_{count}"))
            script.append(in_fresh_process(__file__, kind="script", file=str(file), output=target, **case))

    print("resident memory in MB")
    print(
        f"{'questions':>10} {'after 2,000':>12} {'at the end':>11} {'kept texts':>11} {'peak':>7} {'evaluate.py':>12}"
    )
    for a, s in zip(answers, script, strict=True):
        first, last = dict(map(tuple, a["curve"]))[FIRST], a["curve"][-1][1]
        print(
            f"{a['questions']:>10,} {first:>12,.0f} {last:>11,.0f} {a['kept']:>11.1f} {a['peak']:>7,.0f} "
            f"{s['peak']:>12,.0f}"
        )
    more = COUNTS[1] - COUNTS[0]
    line = {
        "benchmark": "evaluation_memory",
        "unit": "MB",
        "answers": answers,
        "evaluate.py": script,
        "bytes_a_question": {
            "answers": MB * (answers[1]["peak"] - answers[0]["peak"]) / more,
            "of_them_kept": MB * (answers[1]["kept"] - answers[0]["kept"]) / more,
            "evaluate.py": MB * (script[1]["peak"] - script[0]["peak"]) / more,
            "of_them_reading": MB * (script[1]["reading"] - script[0]["reading"]) / more,
        },
        "device": cpu(),
        "versions": own_versions(),
    }
    print(json.dumps(line["bytes_a_question"]))
    args.output.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    console.run(main)
