"""A model folder for ONNX Runtime: onnx/model.onnx (fp32) and onnx/model_quantized.onnx (int8), each checked before it
stays. onnx.json says which files belong together, and on what they were checked.

The layout is the Hub's: beside config.json and tokenizer.json, transformers.js loads both as they are. Where the check
ran matters little: the products of int8 are exact on every processor (int8.py), and only floats round differently.
"""

import contextlib
import io
import logging
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from extractive_qa.bootstrap import interval, resampled_means
from extractive_qa.errors import QAError
from extractive_qa.export.int8 import Products, measure_activation_ranges, to_int8, without_identities
from extractive_qa.files.atomic import patiently
from extractive_qa.files.manifest import listed_files, write_manifest
from extractive_qa.metrics import choose_f1_unit, exact_match_score, f1_score
from extractive_qa.model.backends import OnnxBackend
from extractive_qa.model.families import input_names
from extractive_qa.model.fold_norms import fold_norms
from extractive_qa.model.folder import EARLIER_ONNX_FILES, ONNX_FILES, ONNX_MANIFEST, require_model
from extractive_qa.model.loading import load_model
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader

logger = logging.getLogger(__name__)

TOOL = "tools/export_onnx.py"
OPSET = 17
COMPARED = 100  # questions on which logits are compared
MOST_ERROR = {"no": 0.001, "int8": 0.1}  # of the logits: root mean square over their spread
MOST_LOST = 0.5  # points of F1 that int8 may lose, beyond chance: compared with the lower end of the loss's interval
# what decides how integers are multiplied, as torch.cpu.get_capabilities() names it: on x86, then on ARM
DECISIVE = ("avx2", "avx512_bw", "avx_vnni", "avx512_vnni", "amx_int8", "dot", "i8mm", "sve")
NO_INTEGERS = (  # SqueezeBERT
    "{} is not made: the layers of this model are convolutions, and only products of matrices are computed in 8-bit "
    "integers here. model.onnx (fp32) is"
)


@dataclass(frozen=True)
class Check:
    """How one exported model answered the questions it was checked on. logits_error: against PyTorch's in fp32.
    answers_changed, f1_lost: against the exported fp32 model; None for that itself. onnx.json has the same names."""

    name: str  # of its file
    exact_match: float  # percent
    f1: float  # percent
    questions_per_second: float
    logits_error: float  # root mean square over the logits' spread
    size: int  # bytes
    answers_changed: float | None = None  # share of the answers
    f1_lost: float | None = None  # points, mean
    f1_lost_interval: tuple[float, float] | None = None  # 95 %; None too where all contexts lose the same: mostly 0
    refused: str = ""  # why it may not stay


class Recording:
    """A backend as the given one, which keeps the logits that it gives, of tokens: (2, tokens) of each batch."""

    def __init__(self, backend):
        self.backend, self.kept = backend, []

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def logits(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        logits = self.backend.logits(batch)
        self.kept.append(logits[:, batch["attention_mask"] == 1])
        return logits


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
    """Exports the model of a folder into it, with onnx.json: the checksums of what belongs together, and the checks.

    examples: the questions to check on. texts: examples to measure activation ranges on. force: files stay whatever
    their checks say. each(check) is called after each check.
    Returns the files that stayed, and the checks of those that were made. Earlier files stay until all is checked.
    Raises OSError where the folder can't be written, QAError where the model can't answer.
    """
    open_reader = partial(Reader, model_dir, handle_impossible_answer=handle_impossible_answer)
    plain = open_reader("cpu", "no", backend="torch")
    config = require_model(model_dir)
    folder = (model_dir / ONNX_FILES["no"]).parent
    partials = {precision: model_dir / f"{name}.partial" for precision, name in ONNX_FILES.items()}
    checks, answers = [], {}
    try:
        folder.mkdir(exist_ok=True)
        export_fp32(model_dir, partials["no"])
        model = without_identities(onnx.load(partials["no"]))
        expected = logits_of(open_reader(backend=Recording(plain.backend)), examples[:COMPARED], progress)
        for precision in ("no", "int8"):
            if precision == "int8":
                if not Products(model).by_input:
                    logger.warning(NO_INTEGERS.format(ONNX_FILES[precision]))
                    break
                ranges = measure_activation_ranges(model, plain, texts, progress)
                onnx.save(to_int8(model, ranges), partials["int8"])
            reader = open_reader(backend=Recording(OnnxBackend(partials[precision], precision, config)))
            answers[precision], logits, rate = answer_all(reader, examples, ONNX_FILES[precision], progress)
            error = float(np.sqrt(np.mean((logits - expected) ** 2)) / expected.std())
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
        earlier = files_of_earlier_version(model_dir)
        record = {"checked": describe(checks, examples)}
        write_manifest(model_dir, TOOL, None, paths=[*origin, *kept], name=ONNX_MANIFEST, more=record)
        for path in earlier:
            patiently(path.unlink, True)
    finally:
        for path in partials.values():
            patiently(path.unlink, True)
        with contextlib.suppress(OSError):  # of a failed export, or one of which nothing stayed
            folder.rmdir()
    return kept, checks


def files_of_earlier_version(model_dir: Path) -> list[Path]:
    """The exports that an earlier version of this tool put into the folder itself, by its own list."""
    with contextlib.suppress(QAError):  # a damaged list says nothing, and no file is touched
        listed = listed_files(model_dir, ONNX_MANIFEST)
        return [model_dir / name for name in EARLIER_ONNX_FILES.values() if name in listed]
    return []


def describe(checks: Sequence[Check], examples: Sequence[dict]) -> dict:
    """What onnx.json says of the checks: where they ran, on how many questions, and what was found of each model."""
    processor = torch.cpu.get_capabilities()
    return {
        "processor": processor.get("cpu_name") or platform.machine(),
        "instructions": [name for name in DECISIVE if processor.get(name)],
        "system": f"{platform.system()} {platform.machine()}",
        "onnxruntime": onnxruntime.__version__,
        "questions": len(examples),
        "contexts": len({example["context"] for example in examples}),
        "questions_of_logits": min(COMPARED, len(examples)),
        "models": [asdict(check) for check in checks],
    }


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


def logits_of(reader: Reader, examples: Sequence[dict], progress: Callable) -> np.ndarray:
    """The logits of a reader with a Recording, float32 (2, tokens), of all windows of the examples in its order."""
    with progress(desc="PyTorch's logits", total=len(examples), unit=" questions", leave=False) as bar:
        reader.predict(examples, bar=bar)
    return np.concatenate(reader.backend.kept, axis=1)


def answer_all(
    reader: Reader, examples: Sequence[dict], name: str, progress: Callable
) -> tuple[dict[str, str], np.ndarray, float]:
    """The answers to the examples of a reader with a Recording; its logits on the first COMPARED, as logits_of gives
    them, and questions a second."""
    began, predictions, kept = time.monotonic(), {}, []
    for part in filter(len, (examples[:COMPARED], examples[COMPARED:])):
        with progress(desc=f"checking {name}", total=len(part), unit=" questions", leave=False) as bar:
            predictions |= reader.predict(part, bar=bar)[0]
        kept = kept or list(reader.backend.kept)
    return predictions, np.concatenate(kept, axis=1), len(examples) / (time.monotonic() - began)


def judge(
    precision: str, answers: dict[str, dict[str, str]], examples: Sequence[dict], rate: float, error: float, size: int
) -> Check:
    """How the answers of one precision compare with those of fp32, and whether the model may stay. With few questions
    chance alone moves F1 by points: then it is the logits that tell. Chance is that of other contexts (bootstrap.py);
    of a single one, of other questions on it."""
    found, plain = answers[precision], answers["no"]
    unit = choose_f1_unit(examples)
    references = {example["id"]: example["answers"]["text"] for example in examples}

    def scores(score: Callable, some: dict[str, str]) -> np.ndarray:  # (Q,), percent
        return 100 * np.array([score(some[key], texts, unit) for key, texts in references.items()])

    f1 = scores(f1_score, found)
    exact_match = float(scores(exact_match_score, found).mean())
    check = Check(ONNX_FILES[precision], exact_match, float(f1.mean()), rate, error, size)
    most = MOST_ERROR[precision]
    refused = f"logits differ from PyTorch's by {error:.2g} of their spread, more than {most:g}" if error > most else ""
    if precision == "no":
        return replace(check, refused=refused)
    losses, numbers = scores(f1_score, plain) - f1, {}
    context = np.array([numbers.setdefault(example["context"], len(numbers)) for example in examples])
    if len(numbers) == 1:
        context = np.arange(len(examples))
    draws = resampled_means(losses, context, np.ones((1, len(losses)), dtype=bool))[:, 0]
    mean = float(losses.mean())
    ends = interval(draws, int(context.max()) + 1)
    if (ends or (mean, mean))[0] > MOST_LOST:
        chance = " ({:.2f} to {:.2f})".format(*ends) if ends else ""
        refused = refused or f"{mean:.2f} points of F1 are lost{chance}, more than {MOST_LOST}"
    changed = float(np.mean([text != plain[key] for key, text in found.items()]))
    return replace(check, answers_changed=changed, f1_lost=mean, f1_lost_interval=ends, refused=refused)
