"""Training MobileBERT in full size (random weights) with effective batches of 16 windows of real lengths.

    python dev/make_random_model.py     # once
    python benchmarks/training.py

Ours: train.py in a process of its own, as a user runs it, timed by its own log from step 21 on. Peer: a plain
PyTorch loop in fp32 with every window padded to 384, 16 at once; at its best in bf16, unpadded, with our groups of like
length. All train on the same batches, others with every turn (the padded peer, whose steps all cost the same, on the
first two). Writes benchmarks/results/training.json. Takes about 15 minutes on 2 CPU cores.
"""

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from pairs import (
    MFLOP_PER_TOKEN,
    PROJECT_ROOT,
    RANDOM_ENCODER,
    TRAIN_FILE,
    Peer,
    arguments,
    cpu,
    gemm_peak,
    own_versions,
    report,
    summarize,
    take_turns,
)

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.model.folder import require_model
from extractive_qa.preprocessing.batches import epoch_batches
from extractive_qa.preprocessing.windows import load_tokenizer, prepare_train_features
from utils import console

MAX_LENGTH, DOC_STRIDE, BATCH_SIZE = 384, 128, 16
# train.py begins anew in every turn, and the first steps meet most lengths for the first time, for which the CPU's
# kernels are compiled: in an epoch of thousands of steps that is nothing, so these are not counted
LOGGING_STEPS, UNCOUNTED, INTERVALS = 4, 5, 3  # steps in an interval, intervals
PADDED_STEPS = 2
TARGET = 5


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "training")
    parser.add_argument("--train_file", type=Path, default=TRAIN_FILE, help="questions with answers")
    parser.add_argument("--model_dir", type=Path, default=RANDOM_ENCODER, help="the model that is trained")
    parser.add_argument("--micro_batch", type=int, default=4, help="train.py's --per_device_train_batch_size")
    args = parser.parse_args(argv)
    require_model(args.model_dir, "Run: python dev/make_random_model.py")
    if BATCH_SIZE % args.micro_batch:
        raise QAError(f"--micro_batch {args.micro_batch} does not divide {BATCH_SIZE}")

    examples = read_examples(args.train_file, "train")
    features = prepare_train_features(examples, load_tokenizer(args.model_dir), MAX_LENGTH, DOC_STRIDE)
    lengths = features.lengths
    peak = gemm_peak()
    with tempfile.TemporaryDirectory() as folder:
        turns = [batches_of_turn(lengths, turn) for turn in range(args.pairs)]
        numbers = save_windows(features, turns, Path(folder) / "windows.npz")
        ours, padded, unpadded = names = [
            f"train.py, bf16, {args.micro_batch} windows x {BATCH_SIZE // args.micro_batch}",
            "plain loop, fp32, padded to 384",
            "plain loop, bf16, unpadded, grouped by length",
        ]
        with Peer("training", args.model_dir.resolve(), Path(folder) / "windows.npz") as peer:
            batches = [[numbers[i] for i in batch] for batch in turns[0]]
            for way in ({"padded": True, "bf16": False}, {"padded": False, "bf16": True}):
                peer("train", batches=batches[:1], **way)  # warm up
            calls = {name: itertools.count() for name in names}

            def batches_for(name: str) -> list[list[int]]:
                return [[numbers[i] for i in batch] for batch in turns[next(calls[name])]]

            sides = {
                ours: lambda: train_ours(args, next(calls[ours]), len(features) / len(examples), Path(folder)),
                padded: lambda: rate(
                    peer("train", batches=batches_for(padded)[:PADDED_STEPS], padded=True, bf16=False)
                ),
                unpadded: lambda: rate(peer("train", batches=batches_for(unpadded), padded=False, bf16=True)),
            }
            figures, others = take_turns(sides, args.pairs, args.patience)
            versions = {"ours": own_versions(), "peer": peer.versions}

    trained = np.concatenate([i for turn in turns for i in turn])
    tokens = float(lengths[trained].mean())
    result = summarize(
        "training", figures, [ours], [padded], [unpadded], "windows/s", TARGET, cpu(), versions,
        tokens_per_window={"trained on": tokens, "all questions": float(lengths.mean())},
        gemm_peak_gflops=peak, others=others,
    )  # fmt: skip
    # forward and backward cost three forward passes; padding is not counted as work done
    useful = 3 * MFLOP_PER_TOKEN * tokens / 1e3
    result["share_of_gemm_peak"] = {
        ours: result["ours"] * useful / peak["bf16"],
        padded: result["peer"] * useful / peak["no"],
        unpadded: result["medians"][unpadded] * useful / peak["bf16"],
    }
    report(result, figures, args.results_dir / "training.json")


def batches_of_turn(lengths: np.ndarray, seed: int) -> list[np.ndarray]:
    """The batches that train.py --seed SEED trains on in the intervals that are counted."""
    batches = epoch_batches(lengths, BATCH_SIZE, seed, 0)
    return batches[LOGGING_STEPS * UNCOUNTED : LOGGING_STEPS * (UNCOUNTED + INTERVALS)]


def save_windows(features, turns: list[list[np.ndarray]], path: Path) -> dict[int, int]:
    """Saves the windows of all turns, padded to MAX_LENGTH, for the peer. Returns the row of each window."""
    rows = sorted({int(i) for turn in turns for batch in turn for i in batch})
    tokens = {
        name: np.zeros((len(rows), MAX_LENGTH), dtype=np.int64)
        for name in ("input_ids", "token_type_ids", "attention_mask")
    }
    positions = np.zeros((2, len(rows)), dtype=np.int64)
    for row, i in enumerate(rows):
        window = features[i]
        size = len(window["input_ids"])
        tokens["input_ids"][row, :size] = window["input_ids"]
        tokens["token_type_ids"][row, :size] = window["token_type_ids"]
        tokens["attention_mask"][row, :size] = 1
        positions[:, row] = window["start_position"], window["end_position"]
    np.savez(path, **tokens, start_positions=positions[0], end_positions=positions[1])
    return {i: row for row, i in enumerate(rows)}


def train_ours(args, seed: int, windows_per_question: float, folder: Path) -> float:
    """Windows per second of train.py, by its log, in the intervals that count."""
    steps = LOGGING_STEPS * (UNCOUNTED + INTERVALS)
    output = folder / f"trained-{seed}"
    flags = {
        "model_dir": args.model_dir, "train_file": args.train_file, "eval_file": args.train_file, "max_eval_samples": 1,
        "output_dir": output, "max_steps": steps, "logging_steps": LOGGING_STEPS, "seed": seed,
        "per_device_train_batch_size": args.micro_batch,
        "gradient_accumulation_steps": BATCH_SIZE // args.micro_batch, "max_length": MAX_LENGTH,
        "doc_stride": DOC_STRIDE,
    }  # fmt: skip
    command = [sys.executable, str(PROJECT_ROOT / "train.py")]
    command += [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        raise QAError(f"train.py ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    log = (output / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    rates = [line["questions_per_second"] for line in map(json.loads, log) if "questions_per_second" in line]
    # every interval has as many windows: their rates' harmonic mean
    return windows_per_question * INTERVALS / sum(1 / rate for rate in rates[-INTERVALS:])


def rate(done: dict) -> float:
    return done["windows"] / done["seconds"]


if __name__ == "__main__":
    console.run(main)
