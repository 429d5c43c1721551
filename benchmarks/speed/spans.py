"""Choosing the best answer, and the 20 best, from logits that are in memory.

    python benchmarks/speed/spans.py

Ours: postprocessing.spans as Reader calls it, on batches of 32 windows. Peer: Python loops over the 20 highest
starts and ends, the windows rows of a dataset and padded to 384; at its best the same loops over Python lists, made
beforehand, without padding. Each side keeps the same number of answers, and the best ones are compared. The logits are
those of models/sample. Writes spans_best.json and spans_20_best.json. Takes about 5 minutes on 2 CPU cores.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

from extractive_qa.postprocessing.spans import relative_to_cls
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_MODEL_DIR

TARGETS = {1: 10, 20: 5}  # answers kept -> times as fast


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, eval_file=harness.DEV_FILE, max_samples=4_961, model_dir=SAMPLE_MODEL_DIR, pairs=5
    )
    examples = harness.read_questions(args.eval_file, most=args.max_samples)
    reader = Reader(args.model_dir, "cpu", batch_size=32, backend="torch")
    features, batches = harness.logits_of(reader, examples)
    # scores in bf16 often tie, and which of two equal ones is taken means nothing: a jitter far below its steps decides
    random, logits = np.random.default_rng(0), np.zeros((2, len(features), 512), dtype=np.float32)
    for windows, *both in batches:
        for i in range(2):
            both[i] += random.normal(0, 1e-4, both[i].shape)  # in the batch too
            logits[i, windows, : both[i].shape[1]] = both[i]
    inside = np.arange(logits.shape[2]) < features.lengths[:, None]  # (windows, longest)

    def choose(n_best: int, comparable=relative_to_cls) -> list[list[dict]]:
        scored = ((windows, *map(comparable, both)) for windows, *both in batches)
        return harness.choose_answers(examples, features, reader.settings, scored, n_best)

    def equal(answers: list[list[dict]], spans: list[list[int]]) -> int:
        return sum([best["start"], best["end"]] == span for (best, *_), span in zip(answers, spans, strict=True))

    with harness.temporary_folder() as folder:
        np.savez(
            folder / "logits.npz", start=logits[0][inside], end=logits[1][inside], lengths=features.lengths,
            offsets=np.concatenate([features[i]["offsets"] for i in range(len(features))]),
            example_index=features.example_index, contexts=np.array([example["context"] for example in examples]),
        )  # fmt: skip
        with harness.Peer("spans", folder / "logits.npz", reader.settings["max_answer_length"]) as peer:

            def theirs(way: str, n_best: int) -> float:
                return len(examples) / peer("decode", way=way, n_best=n_best)["seconds"]

            for n, target in TARGETS.items():
                sides = {
                    f"extractive_qa.postprocessing.spans, {n} kept": lambda n=n: (
                        len(examples) / harness.seconds_of(lambda: choose(n))
                    ),
                    f"loops over a dataset, {n} kept": lambda n=n: theirs("dataset", n),
                    f"loops over lists, {n} kept": lambda n=n: theirs("lists", n),
                }
                figures, others = harness.take_turns(sides, args.pairs, warm_up=True)
                spans = peer("best")["spans"]
                # the peer compares the windows of a question by their raw scores
                counts = {"equal": equal(choose(n), spans), "equal_by_raw_scores": equal(choose(n, np.asarray), spans)}
                harness.report(
                    args, figures, others, peer.versions, "spans_best" if n == 1 else f"spans_{n}_best",
                    *([side] for side in sides), "questions/s", target,
                    questions=len(examples), windows=len(features), best_answers=counts,
                )  # fmt: skip


if __name__ == "__main__":
    harness.start(main)
