"""What MobileBERT gains by answering without its norms (extractive_qa/model/fold_norms.py): time with and without, in turn.

    python dev/make_random_model.py     # once
    python benchmarks/no_norm.py

MobileBERT in full size (random weights), 16 windows of 184 tokens, PyTorch and ONNX Runtime, every precision. Also how
far the logits are from those computed in float64, with norms that do something. Writes
benchmarks/results/no_norm.json. Takes about 2 minutes on 2 CPU cores.
"""

import copy
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from pairs import PROJECT_ROOT, arguments, cpu, own_versions, pairwise, random_reader, rounded, seconds_of, take_turns

from extractive_qa.data.examples import read_examples
from extractive_qa.files.reading import make_room
from extractive_qa.model.backends import OnnxBackend, TorchBackend
from extractive_qa.model.devices import choose_attention
from extractive_qa.model.fold_norms import fold_norms
from extractive_qa.model.loading import load_model
from extractive_qa.reader import Reader
from utils import console
from utils.offline import SAMPLE_DATA_DIR

sys.path.insert(0, str(PROJECT_ROOT / "tools"))
import export_onnx
from quantization import measure_activation_ranges, to_int8, without_identities

WINDOWS, LENGTH = 16, 184
CALIBRATION_QUESTIONS = 16


def exported(model_dir: Path, folder: Path, absorb) -> dict[str, OnnxBackend]:
    """The model exported in fp32 and int8, with what `absorb` does to its norms."""
    export_onnx.fold_norms = absorb
    paths = {"no": folder / f"{absorb.__name__}.onnx", "int8": folder / f"{absorb.__name__}.int8.onnx"}
    export_onnx.export_fp32(model_dir, paths["no"])
    model = without_identities(onnx.load(paths["no"]))
    reader = Reader(model_dir, backend=OnnxBackend(paths["no"], "no"))
    examples = read_examples(SAMPLE_DATA_DIR / "train.json")[:CALIBRATION_QUESTIONS]
    onnx.save(to_int8(model, measure_activation_ranges(model, reader, examples)), paths["int8"])
    return {precision: OnnxBackend(path, precision) for precision, path in paths.items()}


def keep_norms(model: torch.nn.Module) -> torch.nn.Module:
    return model


def distance_from_float64(model_dir: Path, batch: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest error of a logit in fp32 over the spread (standard deviation) of all, with and without norms; the
    norms are drawn, weights from 0.5 to 1.5 and biases from 0 to 1."""
    model = load_model(model_dir, "eager").eval()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name:
            parameter.data = torch.rand_like(parameter) + 0.5 * name.endswith("weight")
    tensors = {name: torch.from_numpy(array[:2]) for name, array in batch.items()}

    def logits(some: torch.nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            output = some(**tensors)
        return torch.stack([output.start_logits, output.end_logits]).double()

    exact = logits(copy.deepcopy(model).double())
    found = {"with norms": logits(model), "without": logits(fold_norms(model))}
    return {name: ((some - exact).abs().max() / exact.std()).item() for name, some in found.items()}


def main(argv: list[str] | None = None) -> None:
    args = arguments(__doc__, "no_norm", pairs=9).parse_args(argv)
    make_room(args.results_dir / "no_norm.json", "--results_dir")
    model_dir, device = random_reader(), torch.device("cpu")
    ids = np.random.default_rng(0).integers(1000, 30_000, (WINDOWS, LENGTH))
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    with tempfile.TemporaryDirectory() as folder:
        backends = {}
        for way, absorb in (("with norms", keep_norms), ("without", fold_norms)):
            for precision in ("no", "bf16"):
                model = absorb(load_model(model_dir, choose_attention(device, precision)))
                backends[f"torch {precision}", way] = TorchBackend(model, device, precision)
            for precision, backend in exported(model_dir, Path(folder), absorb).items():
                backends[f"onnx {precision}", way] = backend
        sides = {
            " ".join(key): lambda backend=backend: seconds_of(lambda: backend.logits(batch))
            for key, backend in backends.items()
        }
        for side in sides.values():
            side()  # warm up
        figures, others = take_turns(sides, args.pairs, args.patience)
    rows = {}
    for name in dict.fromkeys(name for name, _ in backends):
        with_norms, without = figures[f"{name} with norms"], figures[f"{name} without"]
        ratios = pairwise(with_norms, without)
        rows[name] = {
            "with_norms": statistics.median(with_norms),
            "without": statistics.median(without),
            "speedup": statistics.median(ratios),
            "spread": [min(ratios), max(ratios)],
        }
        print(
            f"{name:12} {rows[name]['with_norms']:.3f} s with norms, {rows[name]['without']:.3f} s without: "
            f"{rows[name]['speedup']:.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    distance = distance_from_float64(model_dir, batch)
    print(f"largest error in fp32 over the logits' spread: {distance}")
    line = {
        "benchmark": "no_norm", "unit": "s", "rows": rows, "distance_from_float64": distance, "pairs": args.pairs,
        "others": others, "device": cpu(), "versions": own_versions(),
    }  # fmt: skip
    line = rounded(line)
    args.results_dir.joinpath("no_norm.json").write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    console.run(main)
