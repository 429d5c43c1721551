"""Which attention trains faster on this machine: eager, sdpa or, on a CPU, window by window, in bf16 and fp32?

    python benchmarks/attention.py                                         # MobileBERT in full size
    python benchmarks/attention.py --model_dir <MiniLM folder> --output benchmarks/results/attention_minilm.json

Forward and backward of 4 windows of 176 and of 384 tokens with the model's dropout, all in turn, medians. train.py and
extractive_qa.model.devices.choose_attention follow what this shows on a CPU. Writes benchmarks/results/attention.json. Takes a
minute on one CPU core.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import go_offline

go_offline()

import torch
from pairs import RANDOM_ENCODER, RESULTS_DIR, own_versions

from extractive_qa.files.reading import make_room
from extractive_qa.model.devices import autocast, choose_device, describe
from extractive_qa.model.loading import load_encoder
from extractive_qa.training.cpu_attention import NAME as WINDOW_BY_WINDOW
from extractive_qa.training.cpu_attention import attend_window_by_window
from utils import console

WINDOWS, LENGTHS, TURNS = 4, (176, 384), 5
ATTENTION, PRECISIONS = ("eager", "sdpa"), ("bf16", "no")


def load(model_dir: Path, name: str, device: torch.device) -> torch.nn.Module:
    model, _ = load_encoder(model_dir, "", "eager" if name == WINDOW_BY_WINDOW else name)
    if name == WINDOW_BY_WINDOW:
        attend_window_by_window(model)
    return model.to(device).train()


def seconds_of(model: torch.nn.Module, device: torch.device, precision: str, length: int) -> float:
    """One forward and backward pass."""
    ids = torch.randint(1000, 20_000, (WINDOWS, length), device=device)
    mask = (torch.arange(length, device=device) < length - 8).long().expand(WINDOWS, length)  # some padding, as usual
    began = time.perf_counter()
    with autocast(device, precision):
        output = model(input_ids=ids, token_type_ids=torch.zeros_like(ids), attention_mask=mask)
    (output.start_logits.float().log_softmax(1).mean() + output.end_logits.float().log_softmax(1).mean()).backward()
    model.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--model_dir", type=Path, default=RANDOM_ENCODER, help="dev/make_random_model.py writes it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--output", type=Path, default=RESULTS_DIR / "attention.json", help="result file")
    args = parser.parse_args(argv)
    make_room(args.output, "--output")

    device = choose_device(args.device)
    names = (*ATTENTION, WINDOW_BY_WINDOW) if device.type == "cpu" else ATTENTION
    models = {name: load(args.model_dir, name, device) for name in names}
    cases = {
        (precision, length, name): [] for precision in PRECISIONS for length in LENGTHS for name in names
    }  # fmt: skip
    for turn in range(TURNS + 1):
        for (precision, length, name), times in cases.items():
            seconds = seconds_of(models[name], device, precision, length)
            if turn:  # the first warms up
                times.append(seconds)
    rows = [
        {
            "precision": "fp32" if precision == "no" else precision,
            "tokens": length,
            "attention": name,
            "median": statistics.median(times),
            "spread": [min(times), max(times)],
        }
        for (precision, length, name), times in cases.items()
    ]
    print(f"forward and backward of {WINDOWS} windows, {TURNS} turns, {describe(device)}")
    for row in rows:
        low, high = row["spread"]
        print(
            f"{row['precision']:>6} {row['tokens']:>4} tokens {row['attention']:>16} {row['median']:>7.3f} s "
            f"({low:.3f} to {high:.3f})"
        )
    config = models["eager"].config
    line = {
        "benchmark": "attention",
        "unit": "s",
        "model": f"{config.model_type}, {config.num_hidden_layers} layers",
        "rows": rows,
        "device": describe(device),
        "versions": own_versions(),
    }
    args.output.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    console.run(main)
