"""A model folder for ONNX Runtime: model.onnx (fp32) and model.int8.onnx, each checked before it stays."""

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch

from extractive_qa.export.int8 import measure_activation_ranges, to_int8, without_identities
from extractive_qa.files.manifest import write_manifest
from extractive_qa.metrics import compute_metrics
from extractive_qa.model.backends import OnnxBackend
from extractive_qa.model.families import input_names
from extractive_qa.model.fold_norms import fold_norms
from extractive_qa.model.folder import ONNX_FILES, ONNX_MANIFEST
from extractive_qa.model.loading import load_model
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader

OPSET = 17
MOST_CHANGED = 0.001  # share of the answers that fp32 may change
MOST_LOST = 0.5  # points of F1 that int8 may lose
LIMITS = {"no": "more than 0.1 % of the answers change", "int8": "more than 0.5 points of F1 are lost"}


@dataclass(frozen=True)
class Check:
    """How one model answered the questions it was checked on."""

    name: str  # of its file; "PyTorch" for what the others are compared with
    predictions: dict[str, str]
    exact_match: float  # percent
    f1: float  # percent
    questions_per_second: float
    changed: float = 0.0  # share of answers that differ from PyTorch's
    size: int = 0  # bytes
    refused: str = ""  # why it may not stay


class Logits(torch.nn.Module):
    """A question-answering model as a function of the tensors that it reads to two: what the exporter wants."""

    def __init__(self, model):
        super().__init__()
        self.model, self.inputs = model, input_names(model)

    def forward(self, *tensors):
        output = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        return output.start_logits, output.end_logits


def export_model(
    model_dir: Path,
    examples: Sequence[dict],
    texts: Sequence[dict],
    force: bool = False,
    handle_impossible_answer: bool | None = None,
    progress: Callable = NoProgress,
    each: Callable[[Check], object] = lambda check: None,
) -> tuple[list[Path], list[Check]]:
    """Exports the model of a folder into it, with onnx.json, the checksums of what belongs together.

    examples: the questions to check on. texts: examples to measure activation ranges on. force: files stay whatever
    their checks say. each(check) is called after each check; PyTorch's own comes first.
    Returns the files that stayed and the checks. Earlier files stay until all is checked. Raises OSError where the
    folder can't be written, QAError where the model can't answer.
    """
    open_reader = partial(Reader, model_dir, handle_impossible_answer=handle_impossible_answer)
    plain = check_answers(open_reader("cpu", "no", backend="torch"), examples, "PyTorch", progress)
    each(plain)
    partials = {precision: model_dir / f"{name}.partial" for precision, name in ONNX_FILES.items()}
    checks = [plain]
    try:
        export_fp32(model_dir, partials["no"])
        model = without_identities(onnx.load(partials["no"]))
        reader = open_reader(backend=OnnxBackend(partials["no"], "no"))
        for precision in ("no", "int8"):
            if precision == "int8":
                ranges = measure_activation_ranges(model, reader, texts, progress)
                onnx.save(to_int8(model, ranges), partials["int8"])
            backend = OnnxBackend(partials[precision], precision)
            found = check_answers(open_reader(backend=backend), examples, ONNX_FILES[precision], progress)
            checks.append(compared(found, plain, precision, partials[precision].stat().st_size))
            each(checks[-1])
        # an earlier export goes only now
        refused = {check.name for check in checks if check.refused and not force}
        for precision, name in ONNX_FILES.items():
            if name in refused:
                (model_dir / name).unlink(missing_ok=True)
            else:
                partials[precision].replace(model_dir / name)
        kept = [model_dir / name for name in ONNX_FILES.values() if (model_dir / name).exists()]
        origin = [*sorted(model_dir.glob("*.safetensors")), model_dir / "config.json"]
        write_manifest(model_dir, "tools/export_onnx.py", None, paths=[*origin, *kept], name=ONNX_MANIFEST)
    finally:
        for path in partials.values():
            path.unlink(missing_ok=True)
    return kept, checks


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


def check_answers(reader: Reader, examples: Sequence[dict], name: str, progress: Callable) -> Check:
    """The reader's answers to the examples and their scores."""
    began = time.monotonic()
    with progress(desc=f"checking {name}", total=len(examples), unit=" questions", leave=False) as bar:
        predictions, _ = reader.predict(examples, bar=bar)
    seconds = time.monotonic() - began
    scores = compute_metrics(predictions, examples)
    return Check(name, predictions, scores["exact_match"], scores["f1"], len(examples) / seconds)


def compared(found: Check, plain: Check, precision: str, size: int) -> Check:
    """The check with what has changed against PyTorch's, and whether the model may stay."""
    changed = float(np.mean([text != plain.predictions[key] for key, text in found.predictions.items()]))
    stays = changed <= MOST_CHANGED if precision == "no" else plain.f1 - found.f1 <= MOST_LOST
    return replace(found, changed=changed, size=size, refused="" if stays else LIMITS[precision])
