"""How should the windows of a long context compete for the answer? EM and F1 of three rules on joined paragraphs.

    python benchmarks/quality/long_contexts.py --eval_file dev_a.json

Every question is asked of its own paragraph, of 8 paragraphs of its article, and of the whole article (--paragraphs).

raw      a span's score is its start logit plus its end logit, whatever the window
cls      the same less the window's score of [CLS], where training points when the answer is in another window; this is
         what extractive_qa.reader does
softmax  start and end logits each normalized over their own window first, as they are in training

Writes long_contexts.json. Takes about 10 minutes on 2 CPU cores.
"""

import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

from extractive_qa.metrics import compute_metrics
from extractive_qa.postprocessing.spans import relative_to_cls
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_MODEL_DIR


def normalize(logits: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The logarithm of each window's softmax. logits: (B, L); lengths: (B,), tokens that are no padding."""
    real = np.where(np.arange(logits.shape[1]) < lengths[:, None], logits, -np.inf)
    highest = real.max(axis=1, keepdims=True)
    return logits - highest - np.log(np.exp(real - highest).sum(axis=1, keepdims=True))


RULES = {"raw": lambda logits, _: logits, "cls": lambda logits, _: relative_to_cls(logits), "softmax": normalize}


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, model_dir=SAMPLE_MODEL_DIR, eval_file=harness.DEV_FILE,
        max_samples=(200, "questions, drawn with a fixed seed"),
        paragraphs=([1, 8, 0], "of the article; 0: all of it"),
    )  # fmt: skip
    reader = Reader(args.model_dir, batch_size=32, backend="torch")
    examples = harness.read_questions(args.eval_file)
    examples = random.Random(0).sample(examples, min(args.max_samples, len(examples)))
    results = {}
    for count in args.paragraphs:
        asked = harness.ask_of_neighbours(examples, args.eval_file, count)
        features, batches = harness.logits_of(reader, asked)
        scores = {}
        for name, rule in RULES.items():
            scored = [(w, *(rule(logits, features.lengths[w]) for logits in both)) for w, *both in batches]
            answers = harness.choose_answers(asked, features, reader.settings, scored)
            predictions = {example["id"]: best["text"] for example, (best,) in zip(asked, answers, strict=True)}
            scores[name] = compute_metrics(predictions, examples)
        results[str(count or "all")] = scores
    print(f"EM / F1 of {len(examples)} questions")
    rows = [[n, *(f"{s['exact_match']:.2f} / {s['f1']:.2f}" for s in found.values())] for n, found in results.items()]
    harness.print_table(["paragraphs", *RULES], rows)
    harness.save(
        args, "long_contexts", questions=len(examples), results=results, device=reader.backend.describe(),
        mixed_precision=reader.backend.precision,
    )  # fmt: skip


if __name__ == "__main__":
    harness.start(main)
