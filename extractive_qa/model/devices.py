"""Which device, which precision, and how much memory was used. Imports torch."""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from extractive_qa.errors import QAError
from extractive_qa.model.memory import process_memory

logger = logging.getLogger(__name__)

WHEELS, NEWEST, OLDER = "https://download.pytorch.org/whl", "cu130", "cu126"  # cu126: cards and drivers before cu130's


def choose_device(name: str) -> torch.device:
    """The device of a name: "auto" takes CUDA, then Apple's GPU, then the CPU, and warns where an NVIDIA card is not
    used.

    Raises QAError where the one asked for is not there, or this torch can't use it.
    """
    if name == "auto":
        fault = cuda_fault(torch.device("cuda"))
        name = "cuda" if fault is None else "mps" if torch.backends.mps.is_available() else "cpu"
        if name == "cpu" and shutil.which("nvidia-smi"):
            logger.warning(f"an NVIDIA driver is here, but torch {torch.__version__} {fault}")
    known = name.partition(":")[0] in ("cpu", "cuda", "mps")
    try:
        device = torch.device(name) if known else None  # torch knows others, which nothing here was written for
    except RuntimeError:
        device = None
    if device is None:
        raise QAError(f"device='{name}' is not known. Expected auto, cpu, cuda, cuda:1 or mps.")
    if device.type == "cuda" and (fault := cuda_fault(device)):
        raise QAError(f"device='{name}': torch {torch.__version__} {fault}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise QAError(f"device='{name}': torch {torch.__version__} sees no Apple GPU. Use device='cpu'.")
    return device


def cuda_fault(device: torch.device) -> str | None:
    """Why this torch can't compute on a CUDA card, and what to do about it: words that follow its name. None where it
    can."""
    install = "pip install --force-reinstall torch --index-url"
    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return f"is a build for the CPU. Install a CUDA build: {install} {WHEELS}/{NEWEST}"
        return (
            f"is built for CUDA {torch.version.cuda} and finds no card that it can use. Look with nvidia-smi, and "
            f"update the driver (CUDA 13: 580 or newer) or install a build for older ones: {install} {WHEELS}/{OLDER}"
        )
    if (device.index or 0) >= (count := torch.cuda.device_count()):
        return f"sees {count} GPUs. Look with: nvidia-smi"
    major, minor = torch.cuda.get_device_capability(device)
    kernels = [int(re.sub(r"\D", "", name)) for name in torch.cuda.get_arch_list() if name.startswith("sm_")]
    if kernels and 10 * major + minor < min(kernels):
        return (
            f"has no kernels for {torch.cuda.get_device_name(device)} (compute capability {major}.{minor}, "
            f"expected {min(kernels) / 10} or more). Install a build for older cards: {install} {WHEELS}/{OLDER}"
        )
    return None


def is_fork_of_gpu_user() -> bool:
    """Whether this process was forked from one that used a CUDA card: then no card can be used from here."""
    return torch.cuda._is_in_bad_fork()  # what its own error is raised by


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device has run out of memory: torch's allocator, or the driver outside of it."""
    driver = isinstance(error, torch.AcceleratorError) and "out of memory" in str(error)
    return driver or isinstance(error, torch.OutOfMemoryError)


@contextmanager
def explain_out_of_memory(message: str) -> Iterator[None]:
    """Raises QAError with the `message` where the device's memory runs out in the block."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise QAError(message) from None


def choose_precision(name: str, device: torch.device) -> str:
    """ "no", "bf16" or "fp16" for `mixed_precision`: "auto" takes bf16 where the device computes in it, else "no".

    Raises QAError for fp16 without a GPU and bf16 on a GPU that has no bf16.
    """
    if name == "auto":
        return "bf16" if has_bf16(device) else "no"
    if name == "fp16" and device.type != "cuda":
        raise QAError(f"mixed_precision='fp16' needs a CUDA GPU, this is {device.type}. Use bf16 or no.")
    if name == "bf16" and device.type == "cuda" and not has_bf16(device):
        raise QAError("mixed_precision='bf16' needs an Ampere GPU or newer. Use no (or, at your own risk, fp16).")
    return name


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies in bf16 in hardware: Ampere and newer, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def choose_attention(device: torch.device, precision: str) -> str | None:
    """transformers' attn_implementation. On a CPU in bf16 plain matrix products beat sdpa (MiniLM, 16 windows of 176
    tokens forward and backward: 0.65 s against 0.79 s); elsewhere None: sdpa where the model has it."""
    return "eager" if device.type == "cpu" and precision == "bf16" else None


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a forward pass computes in `precision` ("no", "bf16", "fp16")."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "no")


def describe(device: torch.device) -> str:
    """The device in words: a card's name and memory, or the CPU's name and threads."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"
    if device.type == "mps":
        return "Apple GPU"
    return f"CPU ({torch.cpu.get_capabilities().get('cpu_name', 'unknown')}, {torch.get_num_threads()} threads)"


def used_memory(device: torch.device, peak: bool = False) -> int:
    """Bytes in use, now or at the peak: allocated on a CUDA card, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    return process_memory(peak)
