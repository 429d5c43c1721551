"""Which attention trains MobileBERT faster on this machine: eager or sdpa, in bf16 and fp32?

    python benchmarks/attention.py

Forward and backward of 4 windows of 176 tokens in full size, the four in turn, medians. utils.devices.choose_attention
follows what this shows on a CPU. Writes benchmarks/results/attention.json. Takes two minutes on 2 CPU cores.
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

from utils import console
from utils.backends import load_encoder
from utils.devices import autocast, choose_device, describe

WINDOWS, LENGTH, TURNS = 4, 176, 9
ATTENTION, PRECISIONS = ("eager", "sdpa"), ("bf16", "no")


def seconds_of(model: torch.nn.Module, device: torch.device, precision: str) -> float:
    """One forward and backward pass."""
    ids = torch.randint(1000, 20_000, (WINDOWS, LENGTH), device=device)
    mask = (torch.arange(LENGTH, device=device) < LENGTH - 8).long().expand(WINDOWS, LENGTH)  # some padding, as usual
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
    parser.add_argument("--model_dir", type=Path, default=RANDOM_ENCODER, help="tools/make_random_model.py writes it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--output", type=Path, default=RESULTS_DIR / "attention.json", help="result file")
    args = parser.parse_args(argv)

    device = choose_device(args.device)
    models = {name: load_encoder(args.model_dir, "", name)[0].to(device).train() for name in ATTENTION}
    cases = {(precision, name): [] for precision in PRECISIONS for name in ATTENTION}
    for turn in range(TURNS + 1):
        for (precision, name), times in cases.items():
            seconds = seconds_of(models[name], device, precision)
            if turn:  # the first warms up
                times.append(seconds)
    rows = [
        {
            "precision": "fp32" if precision == "no" else precision,
            "attention": name,
            "median": statistics.median(times),
            "spread": [min(times), max(times)],
        }
        for (precision, name), times in cases.items()
    ]
    print(f"forward and backward of {WINDOWS} windows of {LENGTH} tokens, {TURNS} turns, {describe(device)}")
    for row in rows:
        low, high = row["spread"]
        print(f"{row['precision']:>6} {row['attention']:>6} {row['median']:>7.3f} s ({low:.3f} to {high:.3f})")
    line = {"benchmark": "attention", "unit": "s", "rows": rows, "device": describe(device), "versions": own_versions()}
    args.output.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    console.run(main)
