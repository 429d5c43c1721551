"""How much memory training MobileBERT in full size takes: micro-batches of 1 to 16, fp32 and bf16, with and without
gradient checkpointing, all windows of 384 tokens.

    python benchmarks/training_memory.py

Each figure is the peak of a fresh process that takes two optimizer steps with train.py's own model, optimizer and loop
body: on a CUDA card of what torch allocated, else of all that is resident in the process, Python and libraries with it
(about 0.4 GB). Random weights need as much as trained ones. Writes benchmarks/results/training_memory.json. Takes ten
minutes on 2 CPU cores; --only "16 bf16 checkpointing" measures one line anew and keeps the others.
"""

import argparse
import json
import runpy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import PROJECT_ROOT, go_offline

go_offline()

from fresh import in_fresh_process
from pairs import RANDOM_ENCODER, RESULTS_DIR, own_versions

from extractive_qa.files.reading import make_room
from utils import console

LENGTH = 384  # tokens
STEPS = 2  # in the second one the optimizer's state is there
BATCHES, PRECISIONS, CHECKPOINTING = (1, 4, 8, 16), ("no", "bf16"), (False, True)
MIB = 2**20


def measure(model_dir: str, device: str, batch: int, precision: str, checkpointing: bool) -> dict:
    """The peak in MiB of an optimizer step of `batch` windows, and what was there before the first."""
    import numpy as np
    import torch

    train = runpy.run_path(str(PROJECT_ROOT / "train.py"), run_name="measured")
    flags = {"model_dir": model_dir, "device": device, "mixed_precision": precision, "max_length": LENGTH}
    flags |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 1}
    argv = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    args = train["parse_args"]([*argv, *(["--gradient_checkpointing"] if checkpointing else [])])
    accelerator, precision = train["start_accelerator"](args)
    model, optimizer = train["start_model"](args, Path(model_dir), accelerator, precision)
    random = np.random.default_rng(0)
    windows = [
        {
            "input_ids": random.integers(1000, 20_000, LENGTH),
            "token_type_ids": np.arange(LENGTH) // 20 > 0,
            "start_position": 30,
            "end_position": 31,
        }
        for _ in range(batch)
    ]
    run = train["Training"](args, windows, batch, [], accelerator, precision, model, optimizer, batch)
    model.train()
    used_memory, device = train["used_memory"], accelerator.device
    before, seconds = used_memory(device) / MIB, []
    for _ in range(STEPS):
        began = time.perf_counter()
        loss = train["accumulate_gradients"](run, np.arange(batch))
        accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        assert torch.isfinite(loss), loss
        seconds.append(time.perf_counter() - began)
    return {
        "batch": batch,
        "precision": "fp32" if precision == "no" else precision,
        "checkpointing": checkpointing,
        "peak": used_memory(device, peak=True) / MIB,
        "before": before,
        "seconds_of_a_step": min(seconds),
        "device": train["describe"](device),
        "kind": "allocated on the card" if device.type == "cuda" else "resident in the process",
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--model_dir", type=Path, default=RANDOM_ENCODER, help="dev/make_random_model.py writes it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--output", type=Path, default=RESULTS_DIR / "training_memory.json", help="result file")
    parser.add_argument("--only", default="", help="measure only what this names, as in '16 bf16 checkpointing'")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    make_room(args.output, "--output")
    if args.part:
        print(json.dumps(measure(**args.part)))
        return

    cases = [
        {"batch": batch, "precision": precision, "checkpointing": checkpointing}
        for batch in BATCHES for precision in PRECISIONS for checkpointing in CHECKPOINTING
    ]  # fmt: skip
    known = json.loads(args.output.read_text(encoding="utf-8"))["rows"] if args.only else []
    rows = {name_of(row): row for row in known}
    for case in cases:
        name = name_of(case)
        if not args.only or args.only == name:
            rows[name] = in_fresh_process(__file__, model_dir=str(args.model_dir), device=args.device, **case)
            console.note(f"{name}: {rows[name]['peak']:,.0f} MiB")

    rows = [rows[name_of(case)] for case in cases]
    print(f"peak memory in MiB, {rows[0]['kind']}; {rows[0]['device']}; windows of {LENGTH} tokens")
    print(f"{'batch':>6} {'fp32':>8} {'fp32 checkpointing':>20} {'bf16':>8} {'bf16 checkpointing':>20}")
    for i, batch in enumerate(BATCHES):
        peaks = [row["peak"] for row in rows[4 * i : 4 * i + 4]]
        print(f"{batch:>6} {peaks[0]:>8,.0f} {peaks[1]:>20,.0f} {peaks[2]:>8,.0f} {peaks[3]:>20,.0f}")
    line = {
        "benchmark": "training_memory",
        "unit": "MiB",
        "kind": rows[0]["kind"],
        "rows": rows,
        "device": rows[0]["device"],
        "versions": own_versions(),
    }
    args.output.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


def name_of(row: dict) -> str:
    precision = "fp32" if row["precision"] == "no" else row["precision"]
    return f"{row['batch']} {precision}" + (" checkpointing" if row["checkpointing"] else "")


if __name__ == "__main__":
    console.run(main)
