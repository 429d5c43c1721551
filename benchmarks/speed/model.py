"""The model alone: which attention trains the fastest, does --compile pay, what is gained by folding the norms away?

    python dev/make_random_model.py     # once
    python benchmarks/speed/model.py      # all three, 15 minutes on 2 CPU cores
    python benchmarks/speed/model.py --only attention --model_dir <MiniLM folder> --name attention_minilm

attention  forward and backward of 4 windows with the model's dropout: eager, sdpa and, on a CPU, window by window.
           train.py and extractive_qa.model.devices.choose_attention follow what this shows
compile    the same plain and compiled as train.py does it, one compilation for all lengths, timed with an empty cache
no_norm    16 windows answered by MobileBERT with its norms and with them folded, PyTorch and ONNX Runtime; and how
           far the logits are from those computed in float64, with norms that do something

All in turn, in every precision that the device has. Writes attention.json, compile.json and no_norm.json.
"""

import copy
import os
import statistics
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

from extractive_qa.data.examples import read_examples
from extractive_qa.export import export
from extractive_qa.export.int8 import measure_activation_ranges, to_int8, without_identities
from extractive_qa.model.backends import OnnxBackend, TorchBackend
from extractive_qa.model.devices import autocast, choose_attention, choose_device, describe
from extractive_qa.model.fold_norms import fold_norms
from extractive_qa.model.folder import require_model
from extractive_qa.model.loading import load_encoder, load_model
from extractive_qa.reader import Reader
from extractive_qa.training.cpu_attention import NAME as WINDOW_BY_WINDOW
from extractive_qa.training.cpu_attention import attend_window_by_window
from extractive_qa.training.start import require_compiler
from utils.offline import SAMPLE_DATA_DIR

TRAINED, ANSWERED, LENGTH = 4, 16, 184  # windows to train on and to answer, tokens of the latter


def load(model_dir: Path, attention: str | None, device: torch.device) -> torch.nn.Module:
    torch.manual_seed(0)
    model, _ = load_encoder(model_dir, harness.MAKE_RANDOM, "eager" if attention == WINDOW_BY_WINDOW else attention)
    if attention == WINDOW_BY_WINDOW:
        attend_window_by_window(model)
    return model.to(device).train()


def step(model: torch.nn.Module, device: torch.device, precision: str, length: int) -> None:
    """One forward and backward pass, without the optimizer."""
    ids = torch.randint(1000, 20_000, (TRAINED, length), device=device)
    mask = (torch.arange(length, device=device) < length - 8).long().expand(TRAINED, length)  # some padding, as usual
    with autocast(device, harness.FLAGS[precision]):
        output = model(input_ids=ids, token_type_ids=torch.zeros_like(ids), attention_mask=mask)
    (output.start_logits.float().log_softmax(1).mean() + output.end_logits.float().log_softmax(1).mean()).backward()
    model.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize()


def time_steps(args, name: str, models: dict[tuple[str, str], torch.nn.Module], device: torch.device, **more) -> None:
    """models: by precision and name."""
    sides = {
        (precision, length, name): partial(harness.seconds_of, partial(step, model, device, precision, length))
        for (precision, name), model in models.items() for length in args.lengths
    }  # fmt: skip
    figures, others = harness.take_turns(sides, args.pairs, warm_up=True)
    columns = ("precision", "tokens", "attention")
    rows = [dict(zip(columns, side, strict=True)) | harness.median_and_spread(t) for side, t in figures.items()]
    print(f"seconds for forward and backward of {TRAINED} windows, {args.pairs} turns, {describe(device)}")
    harness.print_table([*columns, "median"], [[*side, f"{statistics.median(t):.3f}"] for side, t in figures.items()])
    config = next(iter(models.values())).config
    harness.save(
        args, name, unit="s", model=f"{config.model_type}, {config.num_hidden_layers} layers", rows=rows,
        device=describe(device), others=statistics.median(others.values()), **more,
    )  # fmt: skip


def compare_attention(args, folder: Path) -> None:
    device = choose_device(args.device)
    names = ["eager", "sdpa", *([WINDOW_BY_WINDOW] if device.type == "cpu" else [])]
    models = {name: load(args.model_dir, name, device) for name in names}
    precisions = harness.precisions_of(device.type)
    time_steps(args, args.name, {(p, name): model for p in precisions for name, model in models.items()}, device)


def compare_compiled(args, folder: Path) -> None:
    device, models, compilation = choose_device(args.device), {}, {}
    require_compiler(device)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    for precision in harness.precisions_of(device.type):
        model = load(args.model_dir, choose_attention(device, harness.FLAGS[precision]), device)
        compiled = torch.compile(model, dynamic=True)
        models |= {(precision, "plain"): model, (precision, "compiled"): compiled}
        steps = [partial(step, compiled, device, precision, length) for length in args.lengths]
        compilation[precision] = sum(map(harness.seconds_of, steps))
    time_steps(args, "compile", models, device, compilation=compilation)


def open_backends(model_dir: Path, folder: Path, way: str, fold) -> dict[str, TorchBackend | OnnxBackend]:
    """The model in every precision, by name and `way`, with what `fold` does to its norms."""
    backends, cpu = {}, torch.device("cpu")
    for precision in map(harness.FLAGS.get, harness.precisions_of("cpu")):
        model = fold(load_model(model_dir, choose_attention(cpu, precision)))
        backends[f"torch {precision} {way}"] = TorchBackend(model, cpu, precision)
    export.fold_norms = fold
    fp32, int8 = (folder / f"{way}.{precision}.onnx" for precision in ("no", "int8"))
    export.export_fp32(model_dir, fp32)
    config = require_model(model_dir)
    model, backend = without_identities(onnx.load(fp32)), OnnxBackend(fp32, "no", config)
    examples = read_examples(SAMPLE_DATA_DIR / "train.json")[:16]  # for the ranges of int8
    onnx.save(to_int8(model, measure_activation_ranges(model, Reader(model_dir, backend=backend), examples)), int8)
    return backends | {f"onnx no {way}": backend, f"onnx int8 {way}": OnnxBackend(int8, "int8", config)}


def distance_from_float64(model_dir: Path, batch: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest error of a logit in fp32 over the spread (standard deviation) of all, with and without norms; the
    norms are drawn, weights from 0.5 to 1.5 and biases from 0 to 1."""
    model = load_model(model_dir, "eager").eval()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name:
            parameter.data = torch.rand_like(parameter) + 0.5 * name.endswith("weight")

    @torch.inference_mode()
    def logits(some: torch.nn.Module) -> torch.Tensor:
        output = some(**{name: torch.from_numpy(array[:2]) for name, array in batch.items()})
        return torch.stack([output.start_logits, output.end_logits]).double()

    exact = logits(copy.deepcopy(model).double())
    found = {"with norms": logits(model), "without": logits(fold_norms(model))}
    return {name: ((some - exact).abs().max() / exact.std()).item() for name, some in found.items()}


def compare_norms(args, folder: Path) -> None:
    model_dir = harness.random_reader()
    ids = np.random.default_rng(0).integers(1000, 30_000, (ANSWERED, LENGTH))
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    backends = open_backends(model_dir, folder, "with norms", lambda model: model)
    backends |= open_backends(model_dir, folder, "without", fold_norms)
    sides = {name: partial(harness.seconds_of, partial(backend.logits, batch)) for name, backend in backends.items()}
    figures, others = harness.take_turns(sides, args.pairs, warm_up=True)
    rows = {}
    for name in [name.removesuffix(" without") for name in sides if name.endswith(" without")]:
        pair = {way: figures[f"{name} {way.replace('_', ' ')}"] for way in ("with_norms", "without")}
        gain = harness.ratio_by_turn(*pair.values())
        medians = {way: statistics.median(seconds) for way, seconds in pair.items()}
        rows[name] = medians | {"speedup": gain["median"], "spread": gain["spread"]}
    columns = ("with_norms", "without", "speedup")
    harness.print_table(["seconds", *columns], [[n, *(f"{row[c]:.3f}" for c in columns)] for n, row in rows.items()])
    distance = distance_from_float64(model_dir, batch)
    print(f"largest error in fp32 over the logits' spread: {distance}")
    harness.save(
        args, "no_norm", unit="s", rows=rows, distance_from_float64=distance, pairs=args.pairs, others=others
    )  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, model_dir=harness.RANDOM_ENCODER, device="auto", pairs=5, only="",
        lengths=([176, 384], "tokens of a window to train on"), name=("attention", "of the result of that part"),
    )  # fmt: skip
    parts = {"attention": compare_attention, "compile": compare_compiled, "no_norm": compare_norms}
    harness.run_parts(args, parts)


if __name__ == "__main__":
    harness.start(main)
