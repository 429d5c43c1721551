"""What turns a padded batch into logits: PyTorch, or ONNX Runtime where the model was exported for it.

A backend has `logits(batch)`, int64 arrays (B, L) to start and end logits float32 (2, B, L); `precision`, the one it
computes in; `config`, of its config.json; `batch_size`, the windows it likes at once; `describe()`, where it computes,
in words; and `peak_memory()` in bytes. Each imports its library when it is made: with ONNX Runtime neither torch nor
transformers is ever loaded, and the first answer comes in a fraction of the time.
"""

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from extractive_qa.errors import QAError
from extractive_qa.files.manifest import check_manifest, listed_files
from extractive_qa.model.families import input_names
from extractive_qa.model.folder import EARLIER_ONNX_FILES, ONNX_FILES, ONNX_MANIFEST, require_model
from extractive_qa.model.loading import load_model
from extractive_qa.model.memory import process_memory

logger = logging.getLogger(__name__)

BACKENDS = ["auto", "torch", "onnx"]
PRECISIONS = ["auto", "no", "bf16", "fp16", "int8"]
EXPORT = "Export it first."
FREE_THE_GPU = "Close other programs that use the GPU, or answer on the CPU: device='cpu'"
FORKED = (
    "the Reader was made on a GPU in the process that this one was forked from, and a GPU can't be used from here. "
    "Expected a Reader of this process's own: make it after the fork, start processes with the method 'spawn', or "
    "answer on the CPU: device='cpu'"
)
STARTED: dict[str, int] = {}  # the process in which PyTorch's threads were started
CPU_BATCH, GPU_BATCH = 4, 32  # windows at once: on a CPU more are slower (docs/RESULTS.md)


def open_backend(
    model_dir: Path, backend: str, device: str, mixed_precision: str, threads: int | None = None
) -> "OnnxBackend | TorchBackend":
    """The backend for a Reader's arguments of these names.

    "auto" takes ONNX Runtime on a CPU where the folder's exported model belongs to its weights (by checksum), else
    PyTorch. Raises QAError where what was asked for can't be had, or the folder holds no model that can answer.
    """
    if backend == "auto" and mixed_precision == "int8" and device in ("auto", "cpu"):
        backend = "onnx"  # whatever else is here: nothing but ONNX Runtime on the CPU has int8
    if backend == "onnx":
        return open_onnx(model_dir, device, mixed_precision, threads)
    if backend == "auto" and (found := usable_export(model_dir, device, mixed_precision)):
        return OnnxBackend(*found, require_model(model_dir), threads)
    if mixed_precision == "int8":
        raise QAError(
            "mixed_precision='int8' needs ONNX Runtime on a CPU, and a model that was exported for it. Leave `device` "
            f"and `backend` out. {EXPORT}"
        )
    from extractive_qa.model.devices import choose_attention, choose_device, choose_precision
    from extractive_qa.model.fold_norms import fold_norms

    place = choose_device(device)
    # there may have been a GPU, but there is none to use
    is_cpu = backend == device == "auto" and place.type == "cpu"
    if is_cpu and (found := usable_export(model_dir, "cpu", mixed_precision)):
        return OnnxBackend(*found, require_model(model_dir), threads)
    precision = choose_precision(mixed_precision, place)
    with torch_threads(threads):
        model = load_model(model_dir, choose_attention(place, precision))
        # fp16 is the only precision that could run out of range by it
        return TorchBackend(model if precision == "fp16" else fold_norms(model), place, precision, threads)


def usable_export(model_dir: Path, device: str, mixed_precision: str) -> tuple[Path, str] | None:
    """The exported model that "auto" answers with, and its precision. None where PyTorch is to answer."""
    if device != "cpu" and (device != "auto" or may_have_gpu()):
        return None
    try:
        return find_export(model_dir, mixed_precision)
    except QAError as error:
        logger.info(f"using PyTorch, as the exported ONNX model does not belong to these weights: {error}")
        return None


def find_export(model_dir: Path, mixed_precision: str) -> tuple[Path, str] | None:
    """The exported model of a folder in this precision, or the first that is there ("auto"), and its precision; None
    where onnx.json is missing or lists none. Raises QAError where the model, the weights it came from, or config.json
    is not as listed there. What answers is read for that, and nothing else: the other model may be missing.
    """
    listed = listed_files(model_dir, ONNX_MANIFEST, EXPORT)
    for precision in ONNX_FILES if mixed_precision == "auto" else [mixed_precision]:
        for name in (ONNX_FILES.get(precision), EARLIER_ONNX_FILES.get(precision)):
            if name in listed and (model_dir / name).is_file():
                others = {*ONNX_FILES.values(), *EARLIER_ONNX_FILES.values()} - {name}
                check_manifest(model_dir, full=True, name=ONNX_MANIFEST, remedy=EXPORT, unused=others)
                return model_dir / name, precision
    return None


def may_have_gpu() -> bool:
    """Whether it is worth importing torch to look for a GPU: an NVIDIA driver, or an Apple processor."""
    return shutil.which("nvidia-smi") is not None or sys.platform == "darwin"


def open_onnx(model_dir: Path, device: str, mixed_precision: str, threads: int | None = None) -> "OnnxBackend":
    """The exported model of a folder. Raises QAError where it is missing, or belongs to other weights."""
    if device not in ("auto", "cpu"):
        raise QAError(f"backend='onnx' runs on the CPU, not on device='{device}'. Leave one of them out.")
    if mixed_precision not in ("auto", *ONNX_FILES):
        raise QAError(f"backend='onnx' computes in int8 or fp32 (no), not in {mixed_precision}. Use backend='torch'.")
    config = require_model(model_dir)
    if not (model_dir / ONNX_MANIFEST).is_file():
        raise QAError(f"{model_dir} has no {ONNX_MANIFEST}: it was not exported for ONNX Runtime. {EXPORT}")
    if found := find_export(model_dir, mixed_precision):
        return OnnxBackend(*found, config, threads)
    raise QAError(f"{model_dir} has no {ONNX_FILES.get(mixed_precision, 'exported model')}. {EXPORT}")


class OnnxBackend:
    """ONNX Runtime on the CPU with the model file `path`. config: what config.json beside it says, read where it is not
    given. threads: of its own pool; None: one a core. Raises QAError where it can't be loaded.

    Where an int8 model was checked (onnx.json says it) makes no difference: its products are exact on every processor.
    """

    batch_size = CPU_BATCH

    def __init__(self, path: Path, precision: str, config: dict | None = None, threads: int | None = None):
        # the one thing that is set in a host's environment: else ONNX Runtime (1.29 and later) sends what it runs to
        # its maker, from a thread. Read when the library is loaded
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        try:
            import onnxruntime
        except ImportError:
            raise QAError("onnxruntime is not installed. Run: pip install onnxruntime") from None
        try:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads or 0  # 0: the library's choice
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have only Exception in common
            raise QAError(f"{path} can't be loaded: {error}. {EXPORT}") from None
        self.path, self.precision, self.threads = path, precision, threads or os.cpu_count()
        self.config = require_model(path.parent) if config is None else config
        self.inputs = [node.name for node in self.session.get_inputs()]

    def logits(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        return np.stack(self.session.run(None, {name: batch[name] for name in self.inputs}))

    def describe(self) -> str:
        import onnxruntime

        return f"CPU (ONNX Runtime {onnxruntime.__version__}, {self.threads} threads)"

    def peak_memory(self) -> int:
        return process_memory(peak=True)


class TorchBackend:
    """PyTorch on any device. model: one that answers questions, anywhere; it is moved to `device` (a torch.device) and
    set to evaluate. precision: as extractive_qa.model.devices.choose_precision gives it. threads: of PyTorch on a CPU,
    while this one computes."""

    def __init__(self, model, device, precision: str, threads: int | None = None):
        from extractive_qa.model.devices import explain_out_of_memory, is_fork_of_gpu_user

        self.device, self.precision, self.threads, self.process = device, precision, threads, os.getpid()
        if device.type == "cuda" and is_fork_of_gpu_user():
            raise QAError(FORKED)
        with explain_out_of_memory(f"out of GPU memory: the model does not fit. {FREE_THE_GPU}"):
            self.model = model.to(device).eval()
        self.inputs, self.config = input_names(model), model.config.to_dict()
        self.batch_size = CPU_BATCH if device.type == "cpu" else GPU_BATCH
        self.at_once = None  # windows, at most, once more of them did not fit the GPU's memory

    def logits(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """In smaller pieces where GPU memory runs out. Raises QAError where there is too little for one window, or
        this is a fork of the process that the GPU belongs to."""
        import torch

        if self.device.type != "cpu" and self.process != os.getpid():
            raise QAError(FORKED)
        parts, begin = [], 0
        while begin < len(batch["input_ids"]):
            part = {name: batch[name][begin:][: self.at_once] for name in self.inputs}
            windows = len(part["input_ids"])
            with suppress(torch.OutOfMemoryError):
                parts.append(self.logits_at_once(part))
                begin += windows
                continue
            # behind the with: while the error was there it held on to the tensors
            if windows == 1:
                raise QAError(f"out of GPU memory with 1 window at once. {FREE_THE_GPU}")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.at_once = windows // 2
            logger.warning(f"out of GPU memory with {windows} windows at once; going on with {self.at_once}")
        return np.concatenate(parts, axis=1)

    def logits_at_once(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        import torch

        from extractive_qa.model.devices import autocast

        with torch_threads(self.threads), torch.inference_mode(), autocast(self.device, self.precision):
            output = self.model(**{name: torch.from_numpy(batch[name]).to(self.device) for name in self.inputs})
            return torch.stack([output.start_logits, output.end_logits]).float().cpu().numpy()

    def describe(self) -> str:
        from extractive_qa.model.devices import describe

        return describe(self.device)

    def peak_memory(self) -> int:
        from extractive_qa.model.devices import used_memory

        return used_memory(self.device, peak=True)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """PyTorch computes with so many threads meanwhile; None: with as many as it has. With one in a process that was
    forked from one where it computed before: the others were not forked, and it would wait for them for ever
    (https://docs.pytorch.org/docs/stable/notes/multiprocessing.html)."""
    import torch

    before = torch.get_num_threads()
    if STARTED.setdefault("PyTorch", os.getpid()) != os.getpid():
        count = 1
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count:
            torch.set_num_threads(before)
