"""Does train.py learn what a plain training learns? EM and F1 of both, two seeds each.

    python benchmarks/quality/plain_training.py --model_dir <MiniLM folder> --eval_file dev_a.json

fast     train.py: bf16 where the processor has it, windows of like length together, fused AdamW, its own attention
plain    peers/training.py: fp32, windows shuffled and batched as they come, the library's attention and AdamW

From the same encoder, on the same questions (to save time drawn among those whose context has at most --max_characters)
with the same steps, batches of 16, learning rates and clipping. Both are scored in fp32 on the same dev questions,
after the last epoch. Writes fast_training.json. Takes 15 minutes on 2 CPU cores; with --sizes 2000 1000 about an hour.
"""

import random
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

from extractive_qa.metrics import compute_metrics
from extractive_qa.preprocessing.windows import load_tokenizer, prepare_train_features
from extractive_qa.reader import Reader
from extractive_qa.training.checkpoints import list_checkpoints
from utils.offline import SAMPLE_MODEL_DIR

EPOCHS, BATCH, RATE, WARM_UP = 3, 16, 2e-4, 0.1
RECIPE = {
    "num_train_epochs": EPOCHS, "learning_rate": RATE, "warmup_ratio": WARM_UP, "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": 1,
}  # fmt: skip


def train_fast(model_dir: Path, examples: list[dict], seed: int, folder: Path) -> Path:
    """Runs train.py as a user does. Returns the folder of its last state."""
    file = harness.write_squad(folder / "train.json", examples)
    flags = RECIPE | {"model_dir": model_dir, "train_file": file, "eval_file": file, "seed": seed, "device": "cpu"}
    flags |= {"max_eval_samples": 1, "save_steps": 10**6, "output_dir": folder / "run"}
    harness.run_script("train.py", flags, "--quiet")
    return list_checkpoints(folder / "run")[-1]


def train_plain(model_dir: Path, examples: list[dict], seed: int, folder: Path) -> Path:
    """The same training without anything that makes it fast."""
    tokenizer, order, batches = load_tokenizer(model_dir), np.random.default_rng(seed), []
    features = prepare_train_features(examples, tokenizer, 384, 128)
    harness.write_windows(folder / "windows.npz", features, range(len(features)), 384)
    for _ in range(EPOCHS):
        windows = order.permutation(len(features)).tolist()
        batches += [windows[begin : begin + BATCH] for begin in range(0, len(windows), BATCH)]
    steps = np.arange(len(batches))
    warm_up = np.ceil(WARM_UP * len(steps))  # steps in which the rate rises; then it falls to 0
    rates = RATE * np.minimum((steps + 1) / (warm_up + 1), (len(steps) - steps) / (len(steps) - warm_up))
    with harness.Peer("training", model_dir.resolve(), folder / "windows.npz", seed) as peer:
        peer("train", batches=batches, padded=False, bf16=False, rates=rates.tolist())
        peer("save", folder=str(folder / "plain"))
    tokenizer.save(str(folder / "plain" / "tokenizer.json"))
    return folder / "plain"


WAYS = {"fast": train_fast, "plain": train_plain}


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, model_dir=SAMPLE_MODEL_DIR, train_file=harness.TRAIN_FILE, eval_file=harness.DEV_FILE,
        sizes=([800, 500], "questions to train on and to score"), max_characters=(600, "of a context"),
    )  # fmt: skip
    drawn = []
    for file, size in zip((args.train_file, args.eval_file), args.sizes, strict=True):
        found = [e for e in harness.read_questions(file) if len(e["context"]) <= args.max_characters]
        drawn.append(random.Random(0).sample(found, min(size, len(found))))
    train, dev = drawn
    rows = []
    for seed in (0, 1):
        for kind, run in WAYS.items():
            with harness.temporary_folder() as folder:
                began = time.perf_counter()
                trained = run(args.model_dir, train, seed, folder)
                row = {"kind": kind, "seed": seed, "training_seconds": time.perf_counter() - began}
                answers = Reader(trained, "cpu", "no").answer_all(dev)
                predictions = {example["id"]: best["text"] for example, (best,) in zip(dev, answers, strict=True)}
            rows.append(row | {"sizes": args.sizes} | compute_metrics(predictions, dev))
            print(harness.rounded(rows[-1]), flush=True)
    f1 = {kind: [row["f1"] for row in rows if row["kind"] == kind] for kind in WAYS}
    means = {kind: sum(scores) / len(scores) for kind, scores in f1.items()}
    between_seeds = {kind: max(scores) - min(scores) for kind, scores in f1.items()}
    difference = means["fast"] - means["plain"]
    harness.save(
        args, "fast_training", unit="F1", rows=rows, means=means, difference=difference, between_seeds=between_seeds,
        met=abs(difference) <= max(between_seeds.values()), recipe=RECIPE, max_characters=args.max_characters,
    )  # fmt: skip


if __name__ == "__main__":
    harness.start(main)
