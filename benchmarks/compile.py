"""Where does --compile pay? Time of MobileBERT's forward and backward in full size, compiled and not, in turn.

    python benchmarks/compile.py

4 windows of 176 and 192 tokens, about the mean of SQuAD, in the attention that train.py would choose. dynamic: one
compilation for all shapes, which is what train.py does; static: one for each shape (24 lengths times the sizes of
micro-batches in a training; here only the first is compiled). Compilation is timed with an empty cache. Writes
benchmarks/results/compile.json. Takes about 15 minutes on 2 CPU cores; --only "bf16 static" measures one case anew and
keeps the others.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import go_offline

go_offline()

from fresh import in_fresh_process
from pairs import RANDOM_ENCODER, RESULTS_DIR, own_versions

from extractive_qa.files.reading import make_room
from utils import console

WINDOWS, LENGTHS, PAIRS = 4, (176, 192), 5
PRECISIONS, MODES = ("bf16", "no"), ("dynamic", "static")


def measure(model_dir: str, device: str, precision: str, mode: str) -> dict:
    """Seconds to compile, and of a forward and backward pass, medians of turns: compiled, plain."""
    import torch

    from extractive_qa.model.devices import autocast, choose_attention, choose_device, describe, require_compiler
    from extractive_qa.model.loading import load_encoder

    device = choose_device(device)
    require_compiler(device)
    torch.manual_seed(0)
    model, _ = load_encoder(Path(model_dir), "", choose_attention(device, precision))
    model.to(device).train()
    lengths = LENGTHS if mode == "dynamic" else LENGTHS[:1]

    def seconds_of(forward, length: int) -> float:
        ids = torch.randint(1000, 20_000, (WINDOWS, length), device=device)
        began = time.perf_counter()
        with autocast(device, precision):
            output = forward(input_ids=ids, token_type_ids=torch.zeros_like(ids), attention_mask=torch.ones_like(ids))
        (output.start_logits.float().log_softmax(1).mean() + output.end_logits.float().log_softmax(1).mean()).backward()
        model.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        compiled = torch.compile(model, dynamic=mode == "dynamic")
        compilation = [seconds_of(compiled, length) for length in lengths]
        times = {"compiled": [], "plain": []}
        seconds_of(model, lengths[0])
        for _ in range(PAIRS):
            for name, forward in (("compiled", compiled), ("plain", model)):
                times[name].append(statistics.mean(seconds_of(forward, length) for length in lengths))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = [a / b for a, b in zip(times["plain"], times["compiled"], strict=True)]
    return {
        "precision": "fp32" if precision == "no" else precision,
        "mode": mode,
        "compilation": sum(compilation),
        **medians,
        "speedup": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "attention": model.config._attn_implementation,
        "device": describe(device),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--model_dir", type=Path, default=RANDOM_ENCODER, help="dev/make_random_model.py writes it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--output", type=Path, default=RESULTS_DIR / "compile.json", help="result file")
    parser.add_argument("--only", default="", help="measure only this, as in 'bf16 static'")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    make_room(args.output, "--output")
    if args.part:
        print(json.dumps(measure(**args.part)))
        return

    rows = {}
    if args.only and args.output.exists():
        known = json.loads(args.output.read_text(encoding="utf-8"))["rows"]
        rows = {f"{row['precision']} {row['mode']}": row for row in known}
    for precision in PRECISIONS:
        for mode in MODES:
            name = f"{'fp32' if precision == 'no' else precision} {mode}"
            if args.only in ("", name):
                case = {"precision": precision, "mode": mode}
                rows[name] = in_fresh_process(__file__, model_dir=str(args.model_dir), device=args.device, **case)

    print(f"{'':>14} {'compilation':>12} {'plain':>8} {'compiled':>9} {'speedup':>8}")
    for name, row in rows.items():
        print(
            f"{name:>14} {row['compilation']:>10.0f} s {row['plain']:>6.3f} s {row['compiled']:>7.3f} s "
            f"{row['speedup']:>8.2f}"
        )
    rows = list(rows.values())
    line = {"benchmark": "compile", "unit": "s", "rows": rows, "device": rows[0]["device"], "versions": own_versions()}
    args.output.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    console.run(main)
