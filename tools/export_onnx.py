"""Exports a trained model for ONNX Runtime: model.onnx (fp32) and model.int8.onnx, into its own folder.

    python tools/export_onnx.py                       # output/final_model, checked on the dev questions of data/squad
    python tools/export_onnx.py --sample              # the sample model, checked on the bundled questions
    python tools/export_onnx.py --model_dir DIR --eval_file FILE --max_samples 1000

Each model is checked before it stays: its answers are compared with PyTorch's in fp32 on --eval_file. One that changes
too much (fp32: more than 0.1 % of the answers; int8: more than 0.5 points of F1 lost) is deleted, unless --force.
onnx.json then lists the files with their checksums: --backend auto uses them only beside the weights they came from.
Exit codes: 0 fp32 is there, and int8 too or a warning why not; 2 fp32 was refused, or something else to mend.
"""

import argparse
import contextlib
import io
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import OUTPUT_DIR, SAMPLE_DATA_DIR, SQUAD_DIR, go_offline, sample_model

go_offline()

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
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
ROW_RATIO = 3  # tokens whose largest value passes this many times the median get scales of their own


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
    add("--sample", action="store_true", help="the bundled questions, and output/sample or the bundled model")
    add("--force", action="store_true", help="keep the models whatever the check says")
    args = parser.parse_args(argv)
    if args.sample:
        parser.set_defaults(model_dir=sample_model(), eval_file=SAMPLE_DATA_DIR / "dev.json")
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


def products_with_weights(model: onnx.ModelProto) -> tuple[dict, dict[str, list]]:
    """The weights by name, and the MatMul nodes that multiply by one, by their input: several may share it. The output
    layer stays in fp32: it is tiny."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    products: dict[str, list] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights and "qa_outputs" not in node.name:
            products.setdefault(node.input[0], []).append(node)
    return weights, products


def without_identities(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its weights used directly: the exporter keeps equal ones once and passes copies through nodes."""
    weights = {tensor.name for tensor in model.graph.initializer}
    copies = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Identity" and node.input[0] in weights
    }
    nodes = [node for node in model.graph.node if node.output[0] not in copies]
    for node in nodes:
        node.input[:] = [copies.get(name, name) for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def record_activations(model: onnx.ModelProto, names: list[str], reader: Reader, examples: list[dict]) -> Iterator:
    """The tensors `names`, (tokens, channels) each, for every window of `examples`."""
    features = prepare_validation_features(
        examples, reader.tokenizer, reader.settings["max_length"], reader.settings["doc_stride"]
    )
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    for i in tqdm(range(len(features)), "calibrating", unit=" windows", leave=False, disable=None):
        batch = pad_batch([features[i]], reader.settings["max_length"], reader.pad_id)
        tokens = int(batch["attention_mask"].sum())
        values = session.run(names, {name: batch[name] for name in reader.backend.inputs})
        yield [value[0, :tokens] for value in values]


@dataclass
class Calibration:
    """How one activation becomes 8-bit integers: divided by `factor` (channels,), then by its row's largest value
    (`by_row`) or by `top`, then times 127."""

    factor: np.ndarray
    top: float
    by_row: bool


def calibrate(model: onnx.ModelProto, reader: Reader, examples: list[dict]) -> dict[str, Calibration]:
    """A Calibration for every activation that enters a product, from its values on `examples`."""
    weights, products = products_with_weights(model)
    largest = dict.fromkeys(products, 0.0)  # of each channel
    for values in record_activations(model, list(products), reader, examples):
        for name, value in zip(products, values, strict=True):
            largest[name] = np.maximum(largest[name], np.abs(value).max(axis=0))
    factors = {}
    for name, nodes in products.items():
        rows = [np.abs(numpy_helper.to_array(weights[node.input[1]])).max(axis=1) for node in nodes]
        factor = np.sqrt(np.maximum(largest[name], 1e-5) / np.maximum(np.maximum.reduce(rows), 1e-5))
        factors[name] = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
    tops: dict[str, list] = {name: [] for name in products}  # of each token
    for values in record_activations(model, list(products), reader, examples):
        for name, value in zip(products, values, strict=True):
            tops[name].append(np.abs(value / factors[name]).max(axis=1))
    calibrations = {}
    for name, parts in tops.items():
        top = np.concatenate(parts)
        by_row = bool(top.max() > ROW_RATIO * np.median(top))
        calibrations[name] = Calibration(factors[name], float(top.max()), by_row)
    return calibrations


def to_int8(model: onnx.ModelProto, calibrations: dict[str, Calibration]) -> onnx.ModelProto:
    """The model with its products in 8-bit integers: weights per output channel, activations as calibrated.

    A few channels, and in some layers a few tokens, are many times larger than all others, and one scale for all would
    leave these no more than a handful of steps (-5 points of F1 on MiniLM). So the channels share their range with the
    weights (SmoothQuant, arXiv 2211.10438), and where tokens differ each has its own scale. No scale depends on the
    batch, so an answer does not either.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    weights, products = products_with_weights(quantized)
    product_names = {node.name for nodes in products.values() for node in nodes}
    readers: dict[str, list] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants, nodes, absorbed, ready = [], [], set(), set()

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def add(operator: str, inputs: list[str], output: str, **attributes) -> str:
        domain = "com.microsoft" if operator == "MatMulIntegerToFloat" else ""
        nodes.append(helper.make_node(operator, inputs, [output], name=output, domain=domain, **attributes))
        return output

    zero = constant("int8_zero", np.uint8(128))
    for node in graph.node:
        if node.name in absorbed:
            continue
        if node.name not in product_names:
            nodes.append(node)
            continue
        (x, weight), output = node.input, node.output[0]
        how = calibrations[x]
        if x not in ready:
            ready.add(x)
            scaled = add("Mul", [x, constant(f"{x}_factor", 1 / how.factor)], f"{x}_scaled")
            if how.by_row:
                row = add("ReduceMax", [add("Abs", [scaled], f"{x}_abs")], f"{x}_row_max", axes=[-1], keepdims=1)
                row = add("Max", [row, constant(f"{x}_tiny", np.float32(1e-12))], f"{x}_row")
                scaled = add("Div", [scaled, row], f"{x}_unit")
            step = constant(f"{x}_step", np.float32((1 if how.by_row else how.top) / 127))
            add("QuantizeLinear", [scaled, step, zero], f"{x}_int8")
        matrix = numpy_helper.to_array(weights[weight]) * how.factor[:, None]
        steps = np.maximum(np.abs(matrix).max(axis=0), 1e-12).astype(np.float32) / 127
        integers = np.clip(np.rint(matrix / steps), -127, 127).astype(np.int8)
        factors = [constant(f"{output}_weight", integers), f"{x}_step", constant(f"{output}_steps", steps), zero]
        factors.insert(0, f"{x}_int8")
        followers = readers[output]
        bias = [name for name in followers[0].input if name in weights and len(weights[name].dims) == 1]
        if how.by_row:
            add("Mul", [add("MatMulIntegerToFloat", factors, f"{output}_unit"), f"{x}_row"], output)
        elif len(followers) == 1 and followers[0].op_type == "Add" and bias:
            absorbed.add(followers[0].name)
            add("MatMulIntegerToFloat", [*factors, "", bias[0]], followers[0].output[0])
        else:
            add("MatMulIntegerToFloat", factors, output)
    replaced = {node.input[1] for group in products.values() for node in group}
    kept = [tensor for tensor in graph.initializer if tensor.name not in replaced]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *constants])
    quantized.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return quantized


def answer(reader: Reader, examples: list[dict], label: str) -> dict:
    """The answers' texts by id, their scores, and the questions answered in a second."""
    began = time.monotonic()
    answers = tqdm(
        reader.answer_all(examples), f"checking {label}", len(examples), unit=" questions", leave=False, disable=None
    )
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

    plain = answer(Reader(args.model_dir, "cpu", "no", backend="torch"), examples, "PyTorch")
    print_line("PyTorch fp32", plain, "")
    fp32 = args.model_dir / f"{ONNX_FILES['no']}.partial"
    refused = {}
    try:
        export_fp32(args.model_dir, fp32)
        model = without_identities(onnx.load(fp32))
        reader = Reader(args.model_dir, backend=OnnxBackend(fp32, "no"))
        for precision, name in sorted(ONNX_FILES.items(), reverse=True):  # fp32 first
            partial = args.model_dir / f"{name}.partial"
            if precision == "int8":
                onnx.save(to_int8(model, calibrate(model, reader, texts)), partial)
            found = answer(Reader(args.model_dir, backend=OnnxBackend(partial, precision)), examples, name)
            changed = np.mean([text != plain["predictions"][key] for key, text in found["predictions"].items()])
            size = partial.stat().st_size / 1e6
            print_line(name, found, f", {changed:.2%} of the answers changed, {size:.0f} MB")
            if not verdict(precision, changed, plain["f1"] - found["f1"]):
                refused[name] = LIMITS[precision]
        # an earlier export goes only now
        for name in ONNX_FILES.values():
            if args.force or name not in refused:
                (args.model_dir / f"{name}.partial").replace(args.model_dir / name)
            else:
                (args.model_dir / name).unlink(missing_ok=True)
        kept = [args.model_dir / name for name in ONNX_FILES.values() if (args.model_dir / name).exists()]
        origin = [*sorted(args.model_dir.glob("*.safetensors")), args.model_dir / "config.json"]
        write_manifest(args.model_dir, "tools/export_onnx.py", None, paths=[*origin, *kept], name=ONNX_MANIFEST)
    except OSError as error:
        raise UserError(
            f"{args.model_dir} can't be written: {error.strerror}. Expected a folder of your own."
        ) from None
    finally:
        for name in ONNX_FILES.values():
            (args.model_dir / f"{name}.partial").unlink(missing_ok=True)
    print(f"wrote {', '.join(path.name for path in kept) or 'nothing'} to {console.shown(args.model_dir)}")
    if refused and not args.force:
        message = (
            f"refused, compared with PyTorch on {len(examples):,} questions: "
            + "; ".join(f"{name}, {why}" for name, why in refused.items())
            + ". Check on more questions (--max_samples), or keep it all the same: --force"
        )
        if ONNX_FILES["no"] in refused:
            raise UserError(message)
        console.warn(message)


def print_line(label: str, found: dict, more: str) -> None:
    print(
        f"{label:16} EM {found['exact_match']:.2f}  F1 {found['f1']:.2f}  "
        f"{found['questions_per_second']:.1f} questions/s{more}"
    )


if __name__ == "__main__":
    console.run(main)
