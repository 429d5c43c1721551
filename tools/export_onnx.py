"""Exports a trained model for ONNX Runtime: model.onnx (fp32) and model.int8.onnx, into its own folder.

    python tools/export_onnx.py                       # output/final_model, checked on the dev questions of data/squad
    python tools/export_onnx.py --sample              # the bundled model, checked on the bundled questions
    python tools/export_onnx.py --model_dir DIR --eval_file FILE --max_samples 1000

Each model is checked before it stays: its answers are compared with PyTorch's in fp32 on --eval_file. One that changes
too much (fp32: more than 0.1 % of the answers; int8: more than 0.5 points of F1 lost) is deleted, unless --force.
onnx.json then lists the files with their checksums: --backend auto uses them only beside the weights they came from.
Exit codes: 0 both models are there, 2 one was refused, or something else to mend.
"""

import argparse
import contextlib
import io
import json
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import OUTPUT_DIR, SAMPLE_DATA_DIR, SAMPLE_MODEL_DIR, SQUAD_DIR, go_offline

go_offline()

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from tqdm.auto import tqdm

from utils import console
from utils.backends import ONNX_FILES, ONNX_MANIFEST, OnnxBackend, load_model
from utils.batches import pad_batch
from utils.console import UserError
from utils.manifest import write_manifest
from utils.metrics import compute_metrics
from utils.offline import require
from utils.reader import Reader
from utils.squad import read_examples
from utils.windows import load_tokenizer, prepare_validation_features

OPSET = 17
LIMITS = {"no": "more than 0.1 % of the answers change", "int8": "more than 0.5 points of F1 are lost"}
CALIBRATION_QUESTIONS = 64
SMOOTHING = 0.5  # exponent of the activations' range; the weights get the rest


class Logits(torch.nn.Module):
    """A question-answering model as a function of three tensors to two: what the exporter wants."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return output.start_logits, output.end_logits


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=console.HelpFormatter, usage="python tools/export_onnx.py [options]"
    )
    add = parser.add_argument
    add("--model_dir", type=Path, default=OUTPUT_DIR / "final_model", help="trained model; the files are put there")
    add("--eval_file", type=Path, default=SQUAD_DIR, help="questions to check the answers on")
    add("--max_samples", type=int, default=2000, help="check on so many of them")
    add("--calibration_file", type=Path, default=SAMPLE_DATA_DIR / "train.json", help="texts to find value ranges on")
    add("--sample", action="store_true", help="the bundled model and questions")
    add("--force", action="store_true", help="keep the models whatever the check says")
    args = parser.parse_args(argv)
    if args.sample:
        parser.set_defaults(model_dir=SAMPLE_MODEL_DIR, eval_file=SAMPLE_DATA_DIR / "dev.json")
        args = parser.parse_args(argv)
    if args.max_samples < 1:
        raise UserError(f"--max_samples is {args.max_samples}, expected at least 1")
    return args


def export_fp32(model_dir: Path, path: Path) -> None:
    """Writes the folder's model as ONNX with a free batch size and length. The model is traced with eager attention."""
    # the model is a copy for this alone: the exporter leaves what it exports in training mode, dropout on
    model = Logits(load_model(model_dir, attention="eager")).eval()
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.full((2, 24), 100)
    example = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    outputs = ["start_logits", "end_logits"]
    axes = {name: {0: "batch", 1: "length"} for name in inputs + outputs}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the tracer, on branches that our inputs never take
        torch.onnx.export(
            model, example, str(path), input_names=inputs, output_names=outputs, dynamic_axes=axes,
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip


def products_with_weights(model: onnx.ModelProto) -> tuple[dict, list]:
    """The weights by name, and the MatMul nodes that multiply by one. The output layer stays in fp32: it is tiny."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    return weights, [node for node in nodes if "qa_outputs" not in node.name]


def activation_ranges(path: Path, model_dir: Path, examples: list[dict]) -> dict[str, np.ndarray]:
    """The largest absolute value of every channel that enters a product, over the windows of `examples`."""
    reader = Reader(model_dir, backend=OnnxBackend(path, "no"))
    features = prepare_validation_features(
        examples, reader.tokenizer, reader.settings["max_length"], reader.settings["doc_stride"]
    )
    model = onnx.load(path)
    names = list(dict.fromkeys(node.input[0] for node in products_with_weights(model)[1]))
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ranges = {}
    for i in tqdm(range(len(features)), "calibrating", unit=" windows", leave=False):
        batch = pad_batch([features[i]], reader.settings["max_length"], reader.pad_id)
        tokens = int(batch["attention_mask"].sum())
        values = session.run(names, {name: batch[name] for name in reader.backend.inputs})
        for name, value in zip(names, values, strict=True):
            ranges[name] = np.maximum(ranges.get(name, 0), np.abs(value[0, :tokens]).max(axis=0))
    return ranges


def export_int8(fp32: Path, path: Path, ranges: dict[str, np.ndarray]) -> None:
    """Writes the model with 8-bit products: weights per output channel, activations as they come, per tensor.

    A few channels of an activation are far larger than the others and would take all of its 256 steps. So each channel
    is divided by a factor, and its row of the weights multiplied by it (SmoothQuant, arXiv 2211.10438).
    """
    model = onnx.load(fp32)
    weights, products = products_with_weights(model)
    by_input: dict[str, list] = {}
    for node in products:
        by_input.setdefault(node.input[0], []).append(node)
    for name, nodes in by_input.items():
        matrices = [numpy_helper.to_array(weights[node.input[1]]) for node in nodes]  # (channels, outputs)
        largest_weight = np.maximum.reduce([np.abs(matrix).max(axis=1) for matrix in matrices])
        factor = np.maximum(ranges[name], 1e-5) ** SMOOTHING / np.maximum(largest_weight, 1e-5) ** (1 - SMOOTHING)
        factor = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(1 / factor, f"{name}_factor"))
        first = min(list(model.graph.node).index(node) for node in nodes)
        smooth = helper.make_node("Mul", [name, f"{name}_factor"], [f"{name}_smooth"], name=f"{name}_smooth")
        model.graph.node.insert(first, smooth)
        for node, matrix in zip(nodes, matrices, strict=True):
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(matrix * factor[:, None], node.input[1]))
            node.input[0] = f"{name}_smooth"
    with contextlib.redirect_stderr(io.StringIO()):
        quantize_dynamic(
            model, path, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8,
            nodes_to_quantize=[node.name for node in products],
        )  # fmt: skip


def answer(reader: Reader, examples: list[dict], label: str) -> dict:
    """The answers' texts by id, their scores, and the questions answered in a second."""
    began = time.monotonic()
    answers = tqdm(reader.answer_all(examples), f"checking {label}", len(examples), unit=" questions", leave=False)
    predictions = {example["id"]: best["text"] for example, (best, *_) in zip(examples, answers, strict=True)}
    seconds = time.monotonic() - began
    scores = compute_metrics(predictions, examples)
    return {
        "predictions": predictions,
        "exact_match": scores["exact_match"],
        "f1": scores["f1"],
        "questions_per_second": len(examples) / seconds,
    }


def verdict(precision: str, changed: float, lost: float) -> bool:
    """Whether a model may stay: `changed`, the share of other answers; `lost`, points of F1."""
    return changed <= 0.001 if precision == "no" else lost <= 0.5


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    require(args.model_dir, "a trained model", "Run: python train.py (or try: python tools/export_onnx.py --sample)")
    require(args.eval_file, "questions to check on", "Run: python download_data.py, or name others: --eval_file")
    load_tokenizer(args.model_dir)
    examples = read_examples(args.eval_file, "validation")[: args.max_samples]
    texts = read_examples(args.calibration_file, "train")[:CALIBRATION_QUESTIONS]
    for name in (*ONNX_FILES.values(), ONNX_MANIFEST):  # an earlier export
        (args.model_dir / name).unlink(missing_ok=True)

    plain = answer(Reader(args.model_dir, "cpu", "no", backend="torch"), examples, "PyTorch")
    report = {"questions": len(examples), "torch": {name: plain[name] for name in plain if name != "predictions"}}
    print_line("PyTorch fp32", plain, "")
    fp32 = args.model_dir / f"{ONNX_FILES['no']}.partial"
    refused = {}
    try:
        export_fp32(args.model_dir, fp32)
        ranges = activation_ranges(fp32, args.model_dir, texts)
        for precision, name in sorted(ONNX_FILES.items(), reverse=True):  # fp32 first
            partial = args.model_dir / f"{name}.partial"
            if precision == "int8":
                export_int8(fp32, partial, ranges)
            found = answer(Reader(args.model_dir, backend=OnnxBackend(partial, precision)), examples, name)
            predictions = found.pop("predictions")
            changed = sum(text != plain["predictions"][key] for key, text in predictions.items()) / len(examples)
            found |= {"changed_answers": changed, "megabytes": partial.stat().st_size / 1e6}
            report[precision] = found
            print_line(name, found, f", {changed:.2%} of the answers changed")
            if not verdict(precision, changed, plain["f1"] - found["f1"]):
                refused[name] = LIMITS[precision]
        for name in ONNX_FILES.values():
            if args.force or name not in refused:
                (args.model_dir / f"{name}.partial").replace(args.model_dir / name)
    finally:
        for name in ONNX_FILES.values():
            (args.model_dir / f"{name}.partial").unlink(missing_ok=True)
    kept = [args.model_dir / name for name in ONNX_FILES.values() if (args.model_dir / name).exists()]
    origin = [*sorted(args.model_dir.glob("*.safetensors")), args.model_dir / "config.json"]
    write_manifest(args.model_dir, "tools/export_onnx.py", None, paths=[*origin, *kept], name=ONNX_MANIFEST)
    print(json.dumps(report))
    print(f"wrote {', '.join(path.name for path in kept) or 'nothing'} to {console.shown(args.model_dir)}")
    if refused and not args.force:
        raise UserError(
            f"refused, compared with PyTorch on {len(examples):,} questions: "
            + "; ".join(f"{name}, {why}" for name, why in refused.items())
            + ". "
            "Check on more questions (--max_samples), or keep it all the same: --force"
        )


def print_line(label: str, found: dict, more: str) -> None:
    print(
        f"{label:16} EM {found['exact_match']:.2f}  F1 {found['f1']:.2f}  "
        f"{found['questions_per_second']:.1f} questions/s{more}"
    )


if __name__ == "__main__":
    console.run(main)
