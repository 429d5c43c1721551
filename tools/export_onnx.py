"""Exports a trained model for ONNX Runtime: model.onnx (fp32) and model.int8.onnx, into its own folder.

    python tools/export_onnx.py                       # output/final_model, checked on the dev questions of data/squad
    python tools/export_onnx.py --sample              # the sample model, checked on the bundled questions
    python tools/export_onnx.py --model_dir DIR --eval_file FILE --max_samples 1000

Each model is checked before it stays: its answers are compared with PyTorch's in fp32 on --eval_file. One that changes
too much (fp32: more than 0.1 % of the answers; int8: more than 0.5 points of F1 lost) is deleted, unless --force.
onnx.json then lists the files with their checksums: --backend auto uses them only beside the weights they came from.
An int8 model that is refused is a warning, an fp32 one an error.
"""

import argparse
import contextlib
import functools
import io
import sys
import time
import warnings
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[:2]]  # for quantization.py, and for utils
from utils.offline import OUTPUT_DIR, SAMPLE_DATA_DIR, SQUAD_DIR, go_offline, sample_model

go_offline()

import numpy as np
import onnx
import torch
from quantization import measure_activation_ranges, to_int8, without_identities

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.files.manifest import write_manifest
from extractive_qa.files.reading import require
from extractive_qa.metrics import compute_metrics
from extractive_qa.model.backends import OnnxBackend
from extractive_qa.model.families import input_names
from extractive_qa.model.fold_norms import fold_norms
from extractive_qa.model.folder import ONNX_FILES, ONNX_MANIFEST, require_model
from extractive_qa.model.loading import load_model
from extractive_qa.reader import Reader
from extractive_qa.settings import read_settings
from extractive_qa.text import shown
from utils import console

OPSET = 17
LIMITS = {"no": "more than 0.1 % of the answers change", "int8": "more than 0.5 points of F1 are lost"}
RANGE_QUESTIONS = 64


class Logits(torch.nn.Module):
    """A question-answering model as a function of the tensors that it reads to two: what the exporter wants."""

    def __init__(self, model):
        super().__init__()
        self.model, self.inputs = model, input_names(model)

    def forward(self, *tensors):
        output = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        return output.start_logits, output.end_logits


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=console.HelpFormatter, usage="python tools/export_onnx.py [options]",
        epilog=console.EXIT_CODES,
    )  # fmt: skip
    add = parser.add_argument
    add("--model_dir", type=Path, default=OUTPUT_DIR / "final_model", help="trained model; the files are put there")
    add("--eval_file", type=Path, default=SQUAD_DIR, help="questions to check the answers on")
    add("--max_samples", type=int, default=2000, help="check on so many of them")
    add("--calibration_file", type=Path, default=SAMPLE_DATA_DIR / "train.json", help="texts for the activation ranges")
    add("--sample", action="store_true", help="the bundled questions, and output/sample or the bundled model")
    add(
        "--handle_impossible_answer", action="store_true",
        help='SQuAD 2: questions may have no answer, and "" be given; else as the model was trained',
    )  # fmt: skip
    add("--skip_bad_examples", action="store_true", help="leave invalid records out instead of refusing the file")
    add("--force", action="store_true", help="keep the models whatever the check says")
    args = parser.parse_args(argv)
    if args.sample:
        parser.set_defaults(model_dir=sample_model(), eval_file=SAMPLE_DATA_DIR / "dev.json")
        args = parser.parse_args(argv)
    if args.max_samples < 1:
        raise QAError(f"--max_samples is {args.max_samples}, expected at least 1")
    return args


def export_fp32(model_dir: Path, path: Path) -> None:
    """Writes the folder's model as ONNX with a free batch size and length. The model is traced with eager attention,
    MobileBERT without its norms."""
    # the model is a copy for this alone: the exporter leaves what it exports in training mode, dropout on
    model = Logits(fold_norms(load_model(model_dir, attention="eager"))).eval()
    inputs = model.inputs
    ids = torch.full((2, 24), 100)
    example = (ids, torch.ones_like(ids), torch.zeros_like(ids))[: len(inputs)]
    outputs = ["start_logits", "end_logits"]
    axes = {name: {0: "batch", 1: "length"} for name in inputs + outputs}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the tracer, on branches that our inputs never take
        torch.onnx.export(
            model, example, str(path), input_names=inputs, output_names=outputs, dynamic_axes=axes,
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip


def answer(reader: Reader, examples: list[dict], label: str) -> dict:
    """The answers' texts by id, their scores, and the questions answered in a second."""
    began = time.monotonic()
    answers = console.progress(
        reader.answer_all(examples), desc=f"checking {label}", total=len(examples), unit=" questions", leave=False
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
    require_model(args.model_dir, "Run: python train.py (or try: python tools/export_onnx.py --sample)")
    require(args.eval_file, "questions to check on", "Run: python download_data.py, or name others: --eval_file")
    impossible = args.handle_impossible_answer or read_settings(args.model_dir).get("handle_impossible_answer") is True
    examples = read_examples(args.eval_file, "validation", args.skip_bad_examples, impossible)[: args.max_samples]
    texts = read_examples(args.calibration_file, "train", args.skip_bad_examples, impossible)[:RANGE_QUESTIONS]

    open_reader = functools.partial(
        Reader, args.model_dir, handle_impossible_answer=args.handle_impossible_answer or None
    )
    plain = answer(open_reader("cpu", "no", backend="torch"), examples, "PyTorch")
    print_line("PyTorch fp32", plain, "")
    fp32 = args.model_dir / f"{ONNX_FILES['no']}.partial"
    refused = {}
    try:
        console.note("exporting ...")
        export_fp32(args.model_dir, fp32)
        model = without_identities(onnx.load(fp32))
        reader = open_reader(backend=OnnxBackend(fp32, "no"))
        for precision, name in sorted(ONNX_FILES.items(), reverse=True):  # fp32 first
            partial = args.model_dir / f"{name}.partial"
            if precision == "int8":
                onnx.save(to_int8(model, measure_activation_ranges(model, reader, texts)), partial)
            found = answer(open_reader(backend=OnnxBackend(partial, precision)), examples, name)
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
        raise QAError(f"{args.model_dir} can't be written: {error.strerror}. Expected a folder of your own.") from None
    finally:
        for name in ONNX_FILES.values():
            (args.model_dir / f"{name}.partial").unlink(missing_ok=True)
    print(f"wrote {', '.join(path.name for path in kept) or 'nothing'} to {shown(args.model_dir)}")
    if refused and not args.force:
        message = (
            f"refused, compared with PyTorch on {len(examples):,} questions: "
            + "; ".join(f"{name}, {why}" for name, why in refused.items())
            + ". Check on more questions (--max_samples), or keep it all the same: --force"
        )
        if ONNX_FILES["no"] in refused:
            raise QAError(message)
        console.warn(message)


def print_line(label: str, found: dict, more: str) -> None:
    print(
        f"{label:16} EM {found['exact_match']:.2f}  F1 {found['f1']:.2f}  "
        f"{found['questions_per_second']:.1f} questions/s{more}"
    )


if __name__ == "__main__":
    console.run(main)
