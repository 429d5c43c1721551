"""Answering 500 real questions with MobileBERT in full size (random weights): questions per second.

    python dev/make_random_model.py                                          # once
    python benchmarks/answering.py

Ours: extractive_qa.reader in every precision and with every backend that is there. Peers: transformers' question-answering
pipeline and Haystack's ExtractiveReader, in fp32 as they come; at their own best also in bf16, with questions sorted by
length. A short trial finds each side's best setting; these then take turns on all questions. Answers are compared with
the pipeline's on models/sample. Writes benchmarks/results/answering.json (our fastest) and answering_fp32.json. Takes
about 20 minutes on 2 CPU cores.
"""

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pairs import (
    DEV_FILE,
    MFLOP_PER_TOKEN,
    Peer,
    arguments,
    cpu,
    gemm_peak,
    own_versions,
    random_reader,
    report,
    seconds_of,
    summarize,
    take_turns,
    wait_for_quiet,
)

from extractive_qa.data.examples import read_examples
from extractive_qa.model.folder import ONNX_FILES
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.reader import Reader
from utils import console
from utils.offline import SAMPLE_MODEL_DIR

TARGETS = {"answering": 3.5, "answering_fp32": 1.7}
SEED = 0


def backends_of(model_dir: Path) -> dict[str, tuple[str, str]]:
    """Every backend and precision in which our reader can answer with this folder on this machine, by name."""
    exported = {"onnx, fp32": ("onnx", "no"), "onnx, int8": ("onnx", "int8")}
    return {"torch, fp32": ("torch", "no"), "torch, bf16": ("torch", "bf16")} | {
        name: way for name, way in exported.items() if (model_dir / ONNX_FILES[way[1]]).exists()
    }


def try_out(sides: dict[str, Callable[[int], float]], count: int, title: str, patience: float) -> dict[str, float]:
    """The rates of all sides in answering `count` questions after a warm-up, each the better of two, so that one
    disturbance does not decide."""
    rates = {}
    for name, side in sides.items():
        side(min(count, 8))
        rates[name] = 0.0
    for _ in range(2):
        for name, side in sides.items():
            wait_for_quiet(patience)
            rates[name] = max(rates[name], side(count))
    for name, rate in rates.items():
        console.note(f"trial, {title}: {name} {rate:.3g} questions/s")
    return rates


def differences(examples: list[dict], model_dir: Path, questions_file: Path) -> dict:
    """How many answers of `model_dir` in fp32 equal the pipeline's, and why others do not."""
    reader = Reader(model_dir, "cpu", "no", backend="torch")
    ours = [answer["text"] for answer, *_ in reader.answer_all(examples)]
    settings = reader.settings
    features = prepare_validation_features(examples, reader.tokenizer, settings["max_length"], settings["doc_stride"])
    windows = np.bincount(features.example_index, minlength=len(examples))
    with Peer("pipeline", model_dir.resolve(), questions_file) as peer:
        usual, by_token = (
            [
                example["context"][begin:end]
                for example, (begin, end) in zip(
                    examples, peer("answer", count=len(examples), align_to_words=align)["spans"], strict=True
                )
            ]
            for align in (True, False)
        )
    counts = {"equal": 0, "the pipeline extends to whole words": 0, "several windows": 0, "unexplained": 0}
    for mine, theirs, exact, number in zip(ours, usual, by_token, windows, strict=True):
        if mine == theirs:
            counts["equal"] += 1
        elif mine == exact:
            counts["the pipeline extends to whole words"] += 1
        elif number > 1:  # it compares windows by a softmax of each alone, we by scores less [CLS]
            counts["several windows"] += 1
        else:
            counts["unexplained"] += 1
            console.note(f"ours {mine!r}, the pipeline's {theirs!r}, without whole words {exact!r}")
    return counts


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "answering")
    parser.add_argument("--eval_file", type=Path, default=DEV_FILE, help="questions")
    parser.add_argument("--questions", type=int, default=500, help="how many, drawn with a fixed seed")
    parser.add_argument("--trial", type=int, default=64, help="questions of the trial for the best settings")
    parser.add_argument("--model_dir", type=Path, default=None, help="a model (default: MobileBERT, random weights)")
    args = parser.parse_args(argv)

    model_dir = args.model_dir or random_reader()
    examples = read_examples(args.eval_file, "validation")
    examples = random.Random(SEED).sample(examples, min(args.questions, len(examples)))
    trial = min(args.trial, len(examples))
    readers = {
        name: Reader(model_dir, "cpu", precision, backend=backend)
        for name, (backend, precision) in backends_of(model_dir).items()
    }
    peak = gemm_peak()

    def ours(reader: Reader) -> Callable[[int], float]:
        return lambda count: count / seconds_of(lambda: list(reader.answer_all(examples[:count])))

    def theirs(peer: Peer, **settings: object) -> Callable[[int], float]:
        return lambda count: count / peer("answer", count=count, **settings)["seconds"]

    with tempfile.TemporaryDirectory() as folder:
        questions_file = Path(folder) / "questions.json"
        fields = [{name: example[name] for name in ("question", "context")} for example in examples]
        questions_file.write_text(json.dumps(fields), encoding="utf-8")
        where = model_dir.resolve(), questions_file
        with Peer("pipeline", *where) as pipeline, Peer("extractive_reader", *where) as haystack:
            groups = {
                "ours": {f"Reader, {name}": ours(reader) for name, reader in readers.items()},
                "ours, fp32": {f"Reader, {name}": ours(r) for name, r in readers.items() if "fp32" in name},
                "pipeline": {f"pipeline, batch {n}": theirs(pipeline, batch_size=n) for n in (1, 16)},
                "Haystack": {"Haystack": theirs(haystack)},
                "peers in fp32 at their best": {
                    f"pipeline, batch {n}, by length": theirs(pipeline, batch_size=n, by_length=True) for n in (4, 16)
                },
                "peers at their best": {
                    f"{name}, {precision}": theirs(peer, precision=precision, **settings)
                    for precision in ("bf16", "autocast")
                    for name, peer, settings in (
                        ("pipeline, batch 1", pipeline, {"batch_size": 1}),
                        ("pipeline, batch 16, by length", pipeline, {"batch_size": 16, "by_length": True}),
                        ("Haystack", haystack, {}),
                    )
                },
            }
            chosen, trials = {}, {}
            for title, sides in groups.items():
                untried = {name: side for name, side in sides.items() if name not in trials}
                if untried:
                    trials |= try_out(untried, trial, title, args.patience)
                chosen[title] = max(sides, key=trials.get)
            sides = {name: side for group in groups.values() for name, side in group.items()}
            # the best settings in fp32 may be those of the peers as they come
            fp32 = ("pipeline", "Haystack", "peers in fp32 at their best")
            chosen[fp32[-1]] = max((chosen[title] for title in fp32), key=trials.get)
            figures, others = take_turns(
                {name: lambda side=sides[name]: side(len(examples)) for name in dict.fromkeys(chosen.values())},
                args.pairs,
                args.patience,
            )
            versions = {"ours": own_versions(), "peer": pipeline.versions | haystack.versions}
        compared = differences(examples, SAMPLE_MODEL_DIR, questions_file)
        print(f"answers of models/sample in fp32 beside the pipeline's: {compared}")

    reader = next(iter(readers.values()))
    settings = reader.settings
    features = prepare_validation_features(examples, reader.tokenizer, settings["max_length"], settings["doc_stride"])
    tokens = float(features.lengths.sum() / len(examples))
    plain = [chosen["pipeline"], chosen["Haystack"]]
    competitors = {
        "answering": (chosen["ours"], [chosen["peers at their best"], chosen["peers in fp32 at their best"]]),
        "answering_fp32": (chosen["ours, fp32"], [chosen["peers in fp32 at their best"]]),
    }
    for name, (own, best) in competitors.items():
        result = summarize(
            name, figures, [own], plain, best, "questions/s", TARGETS[name], cpu(), versions,
            questions=len(examples), tokens_per_question=tokens, gemm_peak_gflops=peak, trial=trials,
            answers_on_sample_model=compared, others=others,
        )  # fmt: skip
        result["share_of_gemm_peak"] = {
            side: result["medians"][side] * tokens * MFLOP_PER_TOKEN / 1e3 / peak[peak_of(side)]
            for side in result["sides"].values()
        }
        report(result, figures, args.results_dir / f"{name}.json")


def peak_of(side: str) -> str:
    """The matrix-product peak that a side's precision is held against; int8 against that of bf16."""
    return "bf16" if any(precision in side for precision in ("bf16", "autocast", "int8")) else "no"


if __name__ == "__main__":
    console.run(main)
