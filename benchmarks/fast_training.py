"""Does the fast training learn what a plain one learns? EM and F1 of both, two seeds each.

    python benchmarks/fast_training.py --model_dir <MiniLM folder> --train_file ../shared/squad/train_11877.json \
        --eval_file ../shared/squad/dev_a.json

fast     train.py on this machine: bf16 autocast where it has it, windows of like length together, fused AdamW, the
         attention that choose_attention takes
plain    fp32, windows shuffled and batched as they come, the library's attention, AdamW one tensor after another

Both from the same encoder, on the same questions (drawn with a fixed seed, to save time among those whose context has
at most --max_characters), with the same steps, batches of 16, learning rates and clipping; a batch is padded to its
longest window. Both are scored in fp32 on the same dev questions, the state after the last epoch. Seeds change the
order of questions, dropout and the new output layer. --only "plain 1" runs one of the four and keeps the others. Writes
benchmarks/results/fast_training.json. Takes about 15 minutes on 2 CPU cores; with --sizes 2000 1000 about an hour.
"""

import argparse
import json
import random
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import PROJECT_ROOT, SAMPLE_MODEL_DIR, go_offline

go_offline()

from fresh import in_fresh_process, write_squad
from pairs import DEV_FILE, RESULTS_DIR, TRAIN_FILE, cpu, own_versions

from extractive_qa.files.reading import make_room
from utils import console

KINDS, SEEDS = ("fast", "plain"), (0, 1)
EPOCHS, BATCH = 3, 16
RECIPE = {"num_train_epochs": EPOCHS, "learning_rate": 2e-4, "per_device_train_batch_size": BATCH,
          "gradient_accumulation_steps": 1}  # fmt: skip


def train_fast(model_dir: str, train_file: Path, seed: int, folder: Path) -> Path:
    """Runs train.py as a user does. Returns the folder of its last state."""
    flags = RECIPE | {"model_dir": model_dir, "train_file": train_file, "eval_file": train_file, "seed": seed}
    flags |= {"max_eval_samples": 1, "save_steps": 10**6, "output_dir": folder / "run"}
    command = [sys.executable, str(PROJECT_ROOT / "train.py")]
    subprocess.run([*command, *(str(word) for name, value in flags.items() for word in (f"--{name}", value))],
                   check=True, stdout=sys.stderr)  # fmt: skip
    return max((folder / "run").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def train_plain(model_dir: str, train_file: Path, seed: int, folder: Path) -> Path:
    """The same training without anything that makes it fast."""
    import numpy as np
    import torch

    from extractive_qa.data.examples import read_examples
    from extractive_qa.model.folder import save_reader
    from extractive_qa.preprocessing.batches import pad_batch
    from extractive_qa.preprocessing.windows import load_tokenizer, prepare_train_features

    train = runpy.run_path(str(PROJECT_ROOT / "train.py"), run_name="measured")
    args = train["parse_args"]([str(word) for name, value in RECIPE.items() for word in (f"--{name}", value)])
    features = prepare_train_features(
        read_examples(train_file), load_tokenizer(model_dir), args.max_length, args.doc_stride
    )
    torch.manual_seed(seed)
    model, _ = train["load_encoder"](Path(model_dir), "")
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": args.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, eps=args.adam_epsilon, fused=False, foreach=False)
    order, step = np.random.default_rng(seed), 0
    total_steps = EPOCHS * -(-len(features) // BATCH)
    model.train()
    for _ in range(EPOCHS):
        windows = order.permutation(len(features))
        for begin in range(0, len(windows), BATCH):
            batch = pad_batch([features[i] for i in windows[begin : begin + BATCH]], args.max_length, 0)
            batch = {name: torch.from_numpy(array) for name, array in batch.items()}
            inputs = {name: tensor for name, tensor in batch.items() if not name.endswith("_positions")}
            output = model(**inputs)
            train["window_losses"](output.start_logits, output.end_logits, batch).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = train["learning_rate_at"](step, total_steps, args)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    settings = {name: vars(args)[name] for name in ("max_length", "doc_stride", "max_answer_length")}
    (folder / "plain").mkdir()
    save_reader(folder / "plain", model, Path(model_dir), settings | {"temperature": 1.0})
    return folder / "plain"


def measure(
    kind: str, seed: int, model_dir: str, train_file: str, eval_file: str, sizes: list[int], max_characters: int
) -> dict:
    """Trains and scores once: EM, F1 and the seconds of the training."""
    from extractive_qa.data.examples import read_examples
    from extractive_qa.metrics import compute_metrics
    from extractive_qa.reader import Reader

    drawn = []
    for file, size in zip((train_file, eval_file), sizes, strict=True):
        found = [example for example in read_examples(file) if len(example["context"]) <= max_characters]
        drawn.append(random.Random(0).sample(found, min(size, len(found))))
    examples, dev = drawn
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "train.json")
        write_squad(file, examples)
        began = time.perf_counter()
        trained = (train_fast if kind == "fast" else train_plain)(model_dir, file, seed, Path(folder))
        seconds = time.perf_counter() - began
        reader = Reader(trained, "cpu", "no")
        predictions = {
            example["id"]: answers[0]["text"] for example, answers in zip(dev, reader.answer_all(dev), strict=True)
        }
    scores = compute_metrics(predictions, dev)
    case = {"kind": kind, "seed": seed, "sizes": sizes, "max_characters": max_characters}
    return {**case, "training_seconds": seconds, **scores}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--model_dir", type=Path, default=SAMPLE_MODEL_DIR, help="the encoder to start from")
    parser.add_argument("--train_file", type=Path, default=TRAIN_FILE, help="questions to train on")
    parser.add_argument("--eval_file", type=Path, default=DEV_FILE, help="questions to score")
    parser.add_argument("--sizes", type=int, nargs=2, default=[800, 500], help="questions to train on and to score")
    parser.add_argument("--max_characters", type=int, default=600, help="of a context")
    parser.add_argument("--only", default="", help="run only this one, as in 'plain 1'")
    parser.add_argument("--output", type=Path, default=RESULTS_DIR / "fast_training.json", help="result file")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    make_room(args.output, "--output")
    if args.part:
        print(json.dumps(measure(**args.part)))
        return

    rows = {}
    if args.only and args.output.exists():
        rows = {f"{row['kind']} {row['seed']}": row for row in json.loads(args.output.read_text("utf-8"))["rows"]}
    files = {name: str(vars(args)[name]) for name in ("model_dir", "train_file", "eval_file")}
    for seed in SEEDS:
        for kind in KINDS:
            if args.only in ("", f"{kind} {seed}"):
                case = {"kind": kind, "seed": seed, "sizes": args.sizes, "max_characters": args.max_characters}
                rows[f"{kind} {seed}"] = in_fresh_process(__file__, **case, **files)

    print(f"{'':>8} {'seed':>5} {'EM':>7} {'F1':>7} {'training':>10}")
    for row in rows.values():
        print(
            f"{row['kind']:>8} {row['seed']:>5} {row['exact_match']:>7.2f} {row['f1']:>7.2f} "
            f"{row['training_seconds']:>8.0f} s"
        )
    line = {"benchmark": "fast_training", "unit": "F1", "rows": list(rows.values())}
    if len(rows) == len(KINDS) * len(SEEDS):
        f1 = {kind: [row["f1"] for row in rows.values() if row["kind"] == kind] for kind in KINDS}
        means = {kind: sum(scores) / len(scores) for kind, scores in f1.items()}
        line |= {
            "means": means,
            "difference": means["fast"] - means["plain"],
            "between_seeds": {kind: max(scores) - min(scores) for kind, scores in f1.items()},
        }
        line["met"] = abs(line["difference"]) <= max(line["between_seeds"].values())
    line |= {"recipe": RECIPE, "device": cpu(), "versions": own_versions()}
    args.output.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    console.run(main)
