"""A model folder for ONNX Runtime: model.onnx (fp32) and model.int8.onnx, each checked before it stays."""

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch

from extractive_qa.export.int8 import Products, measure_activation_ranges, to_int8, without_identities
from extractive_qa.files.atomic import patiently
from extractive_qa.files.manifest import write_manifest
from extractive_qa.metrics import choose_f1_unit, compute_metrics, f1_score
from extractive_qa.model.backends import OnnxBackend
from extractive_qa.model.families import input_names
from extractive_qa.model.fold_norms import fold_norms
from extractive_qa.model.folder import ONNX_FILES, ONNX_MANIFEST
from extractive_qa.model.loading import load_model
from extractive_qa.preprocessing.batches import length_sorted_batches
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader

logger = logging.getLogger(__name__)

OPSET = 17
COMPARED = 100  # questions on which logits are compared
MOST_ERROR = {"no": 0.001, "int8": 0.1}  # of the logits: root mean square over their spread
MOST_LOST = 0.5  # points of F1 that int8 may lose, beyond chance
CHANCE = 1.96  # standard errors of the mean loss, for 95 %
NO_INTEGERS = (  # SqueezeBERT
    "{} is not made: the layers of this model are convolutions, and only products of matrices are computed in 8-bit "
    "integers here. model.onnx (fp32) is"
)


@dataclass(frozen=True)
class Check:
    """How one exported model answered the questions it was checked on. error: of its logits, against PyTorch's in fp32.
    changed, lost: against the exported fp32 model; None for that itself."""

    name: str  # of its file
    exact_match: float  # percent
    f1: float  # percent
    questions_per_second: float
    error: float  # root mean square over the logits' spread
    size: int  # bytes
    changed: float | None = None  # share of the answers
    lost: tuple[float, float] | None = None  # points of F1: mean, and what chance alone may add or take (95 %)
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
    their checks say. each(check) is called after each check.
    Returns the files that stayed, and the checks of those that were made. Earlier files stay until all is checked.
    Raises OSError where the folder can't be written, QAError where the model can't answer.
    """
    open_reader = partial(Reader, model_dir, handle_impossible_answer=handle_impossible_answer)
    reader = plain = open_reader("cpu", "no", backend="torch")
    partials = {precision: model_dir / f"{name}.partial" for precision, name in ONNX_FILES.items()}
    checks, answers = [], {}
    try:
        export_fp32(model_dir, partials["no"])
        model = without_identities(onnx.load(partials["no"]))
        for precision in ("no", "int8"):
            if precision == "int8":
                if not Products(model).by_input:
                    logger.warning(NO_INTEGERS.format(ONNX_FILES[precision]))
                    break
                ranges = measure_activation_ranges(model, reader, texts, progress)
                onnx.save(to_int8(model, ranges), partials["int8"])
            reader = open_reader(backend=OnnxBackend(partials[precision], precision))
            error = logits_error(reader, plain, examples[:COMPARED])
            answers[precision], rate = answer_all(reader, examples, ONNX_FILES[precision], progress)
            checks.append(judge(precision, answers, examples, rate, error, partials[precision].stat().st_size))
            each(checks[-1])
        # an earlier export goes only now
        refused = {check.name for check in checks if check.refused and not force}
        for precision, name in ONNX_FILES.items():
            if name in refused or not partials[precision].exists():
                patiently((model_dir / name).unlink, True)
            else:
                patiently(partials[precision].replace, model_dir / name)
        kept = [model_dir / name for name in ONNX_FILES.values() if (model_dir / name).exists()]
        origin = [*sorted(model_dir.glob("*.safetensors")), model_dir / "config.json"]
        write_manifest(model_dir, "tools/export_onnx.py", None, paths=[*origin, *kept], name=ONNX_MANIFEST)
    finally:
        for path in partials.values():
            patiently(path.unlink, True)
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


def answer_all(reader: Reader, examples: Sequence[dict], name: str, progress: Callable) -> tuple[dict[str, str], float]:
    """The reader's answers to the examples, and questions a second."""
    began = time.monotonic()
    with progress(desc=f"checking {name}", total=len(examples), unit=" questions", leave=False) as bar:
        predictions, _ = reader.predict(examples, bar=bar)
    return predictions, len(examples) / (time.monotonic() - began)


def logits_error(reader: Reader, plain: Reader, examples: Sequence[dict]) -> float:
    """The root mean square of the difference of two readers' logits on the windows of examples, over the standard
    deviation of the second's."""
    settings = plain.settings
    features = prepare_validation_features(examples, plain.tokenizer, settings["max_length"], settings["doc_stride"])
    found = []  # (2, tokens) of each: start and end logits of one, and of the other
    for windows in length_sorted_batches(features.lengths, plain.batch_size):
        pair = [np.stack(one.logits(features, windows)[1:]) for one in (reader, plain)]
        is_token = np.arange(pair[0].shape[2]) < features.lengths[windows][:, None]
        found.append([logits[:, is_token] for logits in pair])
    ours, theirs = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    return float(np.sqrt(np.mean((ours - theirs) ** 2)) / theirs.std())


def judge(
    precision: str, answers: dict[str, dict[str, str]], examples: Sequence[dict], rate: float, error: float, size: int
) -> Check:
    """How the answers of one precision stand beside those of fp32, and whether the model may stay. With few questions
    chance alone moves F1 by points: then it is the logits that tell."""
    found, plain = answers[precision], answers["no"]
    scores = compute_metrics(found, examples)
    check = Check(ONNX_FILES[precision], scores["exact_match"], scores["f1"], rate, error, size)
    most = MOST_ERROR[precision]
    refused = f"logits differ from PyTorch's by {error:.2g} of their spread, more than {most:g}" if error > most else ""
    if precision == "no":
        return replace(check, refused=refused)
    unit = choose_f1_unit(examples)
    references = {example["id"]: example["answers"]["text"] for example in examples}
    f1 = [np.array([f1_score(some[key], texts, unit) for key, texts in references.items()]) for some in (plain, found)]
    losses = 100 * (f1[0] - f1[1])
    mean, chance = np.mean(losses), CHANCE * np.std(losses) / np.sqrt(len(losses))
    if mean - chance > MOST_LOST:
        refused = refused or f"{mean:.2f} points of F1 are lost, more than {MOST_LOST} beyond chance ({chance:.2f})"
    changed = np.mean([text != plain[key] for key, text in found.items()])
    return replace(check, changed=float(changed), lost=(float(mean), float(chance)), refused=refused)
