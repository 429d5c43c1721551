"""What turns a padded batch into logits: PyTorch, or ONNX Runtime where tools/export_onnx.py has exported the model.

A backend has `logits(batch)`, int64 arrays (B, L) to start and end logits float32 (2, B, L); `precision`, the one it
computes in; `batch_size`, the windows it likes at once; `describe()`, where it computes, in words; and `peak_memory()`
in bytes. Each imports its library when it is made: with ONNX Runtime neither torch nor transformers is ever loaded, and
the first answer comes in a fraction of the time.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from utils.console import UserError, note, warn
from utils.families import input_names, refuse_family
from utils.files import read_json_object
from utils.manifest import check_manifest
from utils.memory import process_memory
from utils.offline import go_offline, require_model

ONNX_MANIFEST = "onnx.json"
ONNX_FILES = {"int8": "model.int8.onnx", "no": "model.onnx"}  # "auto" takes the first that is there
BACKENDS = ["auto", "torch", "onnx"]
PRECISIONS = ["auto", "no", "bf16", "fp16", "int8"]
EXPORT = "Run: python tools/export_onnx.py --model_dir"
FREE_THE_GPU = "Close other programs that use the GPU, or answer on the CPU: --device cpu"
CPU_BATCH, GPU_BATCH = 16, 32  # windows at once: on a CPU 16 stay in its caches, 32 do not (docs/RESULTS.md)


def open_backend(model_dir: Path, backend: str, device: str, mixed_precision: str) -> "OnnxBackend | TorchBackend":
    """The backend for `--backend`, `--device` and `--mixed_precision`.

    "auto" takes ONNX Runtime on a CPU where the folder's exported model belongs to its weights (by checksum), else
    PyTorch. Raises UserError where what was asked for can't be had, or the folder holds no model that can answer.
    """
    if backend == "auto" and mixed_precision == "int8" and device in ("auto", "cpu"):
        backend = "onnx"  # whatever else is here: nothing but ONNX Runtime on the CPU has int8
    if backend == "onnx" or (backend == "auto" and onnx_is_wanted(model_dir, device, mixed_precision)):
        return open_onnx(model_dir, device, mixed_precision)
    if mixed_precision == "int8":
        raise UserError(
            "--mixed_precision int8 needs ONNX Runtime on a CPU, and a model that was exported for it. Leave --device "
            f"and --backend out. {EXPORT} {model_dir}"
        )
    from utils.devices import choose_attention, choose_device, choose_precision
    from utils.no_norm import absorb_norms

    place = choose_device(device)
    if backend == device == "auto" and place.type == "cpu" and onnx_is_wanted(model_dir, "cpu", mixed_precision):
        return open_onnx(model_dir, "cpu", mixed_precision)  # there may have been a GPU, but there is none to use
    precision = choose_precision(mixed_precision, place)
    model = load_model(model_dir, choose_attention(place, precision))
    # fp16 is the only precision that could run out of range by it
    return TorchBackend(model if precision == "fp16" else absorb_norms(model), place, precision)


def onnx_is_wanted(model_dir: Path, device: str, mixed_precision: str) -> bool:
    """Whether "auto" answers with ONNX Runtime."""
    precisions = ONNX_FILES if mixed_precision == "auto" else [mixed_precision]
    if not any((model_dir / ONNX_FILES[name]).is_file() for name in precisions if name in ONNX_FILES):
        return False
    if device != "cpu" and (device != "auto" or may_have_gpu()):
        return False
    try:
        return check_manifest(model_dir, full=True, name=ONNX_MANIFEST)
    except UserError as error:
        note(f"using PyTorch, as the exported ONNX model does not belong to these weights: {error}")
        return False


def may_have_gpu() -> bool:
    """Whether it is worth importing torch to look for a GPU: an NVIDIA driver, or an Apple processor."""
    return shutil.which("nvidia-smi") is not None or sys.platform == "darwin"


def open_onnx(model_dir: Path, device: str, mixed_precision: str) -> "OnnxBackend":
    """The exported model of a folder. Raises UserError where it is missing, or belongs to other weights."""
    remedy = f"{EXPORT} {model_dir}"
    if device not in ("auto", "cpu"):
        raise UserError(f"--backend onnx runs on the CPU, not on --device {device}. Leave that out, or --backend onnx.")
    if mixed_precision not in ("auto", *ONNX_FILES):
        raise UserError(f"--backend onnx computes in int8 or fp32 (no), not in {mixed_precision}. Use --backend torch.")
    require_model(model_dir, "Run: python train.py")
    if not check_manifest(model_dir, full=True, name=ONNX_MANIFEST, remedy=remedy):
        raise UserError(f"{model_dir} has no {ONNX_MANIFEST}: it was not exported for ONNX Runtime. {remedy}")
    for precision, name in ONNX_FILES.items():
        if mixed_precision in ("auto", precision) and (model_dir / name).is_file():
            return OnnxBackend(model_dir / name, precision)
    raise UserError(f"{model_dir} has no {ONNX_FILES.get(mixed_precision, 'exported model')}. {remedy}")


class OnnxBackend:
    """ONNX Runtime on the CPU with the model file `path`. Raises UserError where it can't be loaded."""

    batch_size = CPU_BATCH

    def __init__(self, path: Path, precision: str):
        go_offline()  # for those who use Reader from a program of their own: read when the library is loaded
        try:
            import onnxruntime
        except ImportError:
            raise UserError("onnxruntime is not installed. Run: pip install -r requirements.txt") from None
        try:
            self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have only Exception in common
            raise UserError(f"{path} can't be loaded: {error}. {EXPORT} {path.parent}") from None
        self.precision = precision
        self.inputs = [node.name for node in self.session.get_inputs()]

    def logits(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        return np.stack(self.session.run(None, {name: batch[name] for name in self.inputs}))

    def describe(self) -> str:
        import onnxruntime

        return f"CPU (ONNX Runtime {onnxruntime.__version__}, {os.cpu_count()} threads)"

    def peak_memory(self) -> int:
        return process_memory(peak=True)


class TorchBackend:
    """PyTorch on any device. model: one that answers questions, anywhere; it is moved to `device` (a torch.device) and
    set to evaluate. precision: as utils.devices.choose_precision gives it."""

    def __init__(self, model, device, precision: str):
        from utils.devices import out_of_memory

        self.device, self.precision = device, precision
        try:
            self.model = model.to(device).eval()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise UserError(f"out of GPU memory: the model does not fit. {FREE_THE_GPU}") from None
        self.inputs = input_names(model)
        self.batch_size = CPU_BATCH if device.type == "cpu" else GPU_BATCH
        self.at_once = None  # windows, at most, once more of them did not fit the GPU's memory

    def logits(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """In smaller pieces where GPU memory runs out. Raises UserError where there is too little for one window."""
        import torch

        parts, begin = [], 0
        while begin < len(batch["input_ids"]):
            part = {name: batch[name][begin:][: self.at_once] for name in self.inputs}
            windows = len(part["input_ids"])
            with contextlib.suppress(torch.OutOfMemoryError):
                parts.append(self.logits_at_once(part))
                begin += windows
                continue
            # behind the with: while the error was there it held on to the tensors
            if windows == 1:
                raise UserError(f"out of GPU memory with 1 window at once. {FREE_THE_GPU}")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.at_once = windows // 2
            warn(f"out of GPU memory with {windows} windows at once; going on with {self.at_once}")
        return np.concatenate(parts, axis=1)

    def logits_at_once(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        import torch

        from utils.devices import autocast

        tensors = {name: torch.from_numpy(batch[name]).to(self.device) for name in self.inputs}
        with torch.inference_mode(), autocast(self.device, self.precision):
            output = self.model(**tensors)
        return torch.stack([output.start_logits, output.end_logits]).float().cpu().numpy()

    def describe(self) -> str:
        from utils.devices import describe

        return describe(self.device)

    def peak_memory(self) -> int:
        from utils.devices import used_memory

        return used_memory(self.device, peak=True)


def load_model(model_dir: str | Path, attention: str | None = None):
    """The question-answering model of a folder, in fp32 on the CPU. Raises UserError where it has none."""
    model, missing = load_encoder(model_dir, "Run: python train.py", attention)
    if missing:
        architectures = ", ".join(model.config.architectures or ["a model without a name"])
        raise UserError(
            f"{model_dir} holds {architectures}, which was not trained to answer questions: it has no "
            f"{', '.join(missing)}. Expected a ...ForQuestionAnswering model. "
            f"Run: python train.py --model_dir {model_dir}"
        )
    return model


def load_encoder(model_dir: str | Path, remedy: str, attention: str | None = None):
    """Any encoder folder as a question-answering model in fp32 on the CPU, and the names of the weights of its output
    layer that the folder lacks (drawn anew).

    attention: transformers' attn_implementation. Code that comes with the folder is never run. Raises UserError, with
    `remedy`, where the folder can't be read, is of a kind that can't answer here, lacks other weights, or holds NaN or
    infinity.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForQuestionAnswering
    from transformers.utils import logging

    folder = require_model(model_dir, remedy)
    config = read_json_object(folder / "config.json", "a Hugging Face model's settings", remedy)
    if "auto_map" not in config and (reason := refuse_family(config)):
        raise UserError(f"{folder} can't be loaded: {reason}. {remedy}")
    logging.set_verbosity_error()  # that the output layer is new and the pooler unused is as it should be
    logging.disable_progress_bar()
    try:
        model, loaded = AutoModelForQuestionAnswering.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,  # without this transformers asks the user, and a "y" runs the folder's code
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, by name
        )
    # a config.json of wrong types or sizes fails in as many ways as the library reads it
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError,
        ImportError, SafetensorError, StrictDataclassError,
    ) as error:  # fmt: skip
        reason = f"{type(error).__name__}: {error}"
        if "trust_remote_code" in reason:
            reason = "it needs code of its own, which is never run"
        raise UserError(
            f"{folder} can't be loaded ({reason}). Expected a Hugging Face model folder. {remedy}"
        ) from None
    missing = sorted(loaded["missing_keys"])
    if lost := [name for name in missing if not name.startswith("qa_outputs.")]:
        raise UserError(f"{folder} lacks {len(lost)} of its weights, among them {lost[0]}. {remedy}")
    other_shape = [f"{name} is {list(found)}, expected {list(said)}" for name, found, said in loaded["mismatched_keys"]]
    left_out = [f"{name} has no place" for name in loaded["unexpected_keys"] if ".layer." in name]
    if faults := other_shape + left_out:
        raise UserError(
            f"{folder}: the weights do not fit config.json: {faults[0]}"
            f"{f' ({len(faults) - 1} more)' if len(faults) > 1 else ''}. Expected files of one model. {remedy}"
        )
    files = list(folder.glob("*.safetensors"))
    require_finite(model.named_parameters(), files[0] if len(files) == 1 else folder, remedy)
    return model, missing


def require_finite(tensors: Iterable[tuple], path: Path, remedy: str) -> None:
    """Raises UserError, with `remedy`, where one of the pairs (name, tensor), read from `path`, is not all finite."""
    bad = [(name, (~tensor.isfinite()).sum().item()) for name, tensor in tensors if not tensor.isfinite().all()]
    if bad:
        name, count = bad[0]
        more = f", and {len(bad) - 1} more tensor(s) hold such" if len(bad) > 1 else ""
        raise UserError(
            f"{path} is damaged: {count:,} value(s) of {name} are NaN or infinity{more}. Expected finite numbers. "
            f"{remedy}"
        )
