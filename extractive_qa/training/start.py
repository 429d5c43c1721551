"""What a training starts from: the device, a model that can learn on it, and its optimizer."""

import argparse
import hashlib
import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from tokenizers import Tokenizer

from extractive_qa.errors import QAError
from extractive_qa.model.devices import choose_attention, choose_device, choose_precision
from extractive_qa.model.families import dropout_settings, usable_positions
from extractive_qa.model.folder import require_model
from extractive_qa.model.layers import choose_layers, keep_layers
from extractive_qa.model.loading import load_encoder
from extractive_qa.preprocessing.windows import Features, count_ids
from extractive_qa.processes import PATIENCE
from extractive_qa.settings import check_config
from extractive_qa.training import checkpoints
from extractive_qa.training.cpu_attention import attend_window_by_window
from extractive_qa.training.distillation import identity
from extractive_qa.training.memory import cap_memory
from extractive_qa.training.settings import DOWNLOAD

logger = logging.getLogger(__name__)

ARRAYS = (  # of features
    "question_ids", "question_splits", "context_ids", "example_index", "first_token", "last_token", "start_position",
    "end_position",
)  # fmt: skip


def start_accelerator(args: argparse.Namespace) -> tuple[Accelerator, str]:
    """The device (or devices), its memory capped, and the precision to train in: "no", "bf16" or "fp16".

    Raises QAError where the device is not there, or can't do what the flags ask for.
    """
    device = choose_device(args.device)
    precision = choose_precision(args.mixed_precision, device)
    if device.type == "cuda":
        if precision != "no":
            torch.set_float32_matmul_precision("high")  # TF32 in what stays fp32
        if device.index is not None:
            torch.cuda.set_device(device)
    patience = InitProcessGroupKwargs(timeout=PATIENCE)  # the usual one is shorter than a scoring
    accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu", kwargs_handlers=[patience])
    if cap := cap_memory(accelerator.device, args.max_gpu_memory):
        logger.info(f"GPU memory: at most {cap / 2**30:.1f} GiB")
    if args.compile:
        require_compiler(accelerator.device)
    return accelerator, precision


def require_known_tokens(model_dir: Path, tokenizer: Tokenizer) -> None:
    """Raises QAError where the model of a folder can't take what its tokenizer gives."""
    if problems := check_config(require_model(model_dir, DOWNLOAD), count_ids(tokenizer)):
        raise QAError(f"{model_dir / 'config.json'}: {'; '.join(problems)}. {DOWNLOAD}")


def start_model(
    args: argparse.Namespace, accelerator: Accelerator, precision: str
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """The encoder, or what was saved of a run that is resumed, and its optimizer, on the device."""
    torch.manual_seed(args.seed)  # an encoder's new output layer is drawn at random
    model_dir, remedy = args.model_dir, DOWNLOAD
    if args.resume:
        model_dir, remedy = args.resume, checkpoints.delete_to_go_back(args.resume)
    model = load_trainable(args, model_dir, accelerator.device, precision, remedy)  # fp32; autocast computes in bf16
    optimizer = torch.optim.AdamW(
        parameter_groups(model, args.weight_decay), lr=args.learning_rate, eps=args.adam_epsilon,
        fused=accelerator.device.type in ("cuda", "cpu"),  # one kernel for all weights
    )  # fmt: skip
    return accelerator.prepare(model, optimizer)  # to the device; with several processes, gradients are averaged


def load_trainable(
    args: argparse.Namespace, model_dir: Path, device: torch.device, precision: str, remedy: str
) -> torch.nn.Module:
    """The encoder or checkpoint `model_dir`, in fp32 on the CPU, made ready to learn on `device`.

    Raises QAError, with the `remedy`, where the folder can't be read, and where the model can't do what the flags ask
    for.
    """
    dropout = dropout_settings(require_model(model_dir, remedy), args.attention_dropout, args.hidden_dropout)
    model, _ = load_encoder(model_dir, remedy, choose_attention(device, precision), **dropout)
    if args.keep_layers and not args.resume:  # what was saved has these alone
        keep_layers(model, choose_layers(args.keep_layers, model.config.to_dict()))
    positions = usable_positions(model.config.to_dict())
    if positions and args.max_length > positions:
        raise QAError(
            f"--max_length {args.max_length} is more than the {positions} positions of {args.model_dir}. "
            f"Use --max_length {positions} or less."
        )
    if device.type == "cuda":
        always_make_masks()
    elif device.type == "cpu" and not args.compile:
        attend_window_by_window(model)
    if args.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:  # MobileBERT before transformers 5
            raise QAError(
                f"--gradient_checkpointing: transformers {transformers.__version__} can't do it for this model "
                f"({model.config.model_type}). Leave it out, or install the versions of requirements.txt."
            )
        # its name in transformers 5, and before
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model


def fingerprints(
    args: argparse.Namespace, examples: Sequence[dict], contexts: Sequence[str], eval_examples: Sequence[dict],
    features: Features,
) -> dict[str, str]:  # fmt: skip
    """What a training is made of, as checksums of contents: a run is resumed by these, wherever its files are now.

    contexts: all that negatives are drawn from. features: the windows of the examples.
    """
    of_windows = hashlib.sha256()
    for name in ARRAYS:
        of_windows.update(getattr(features, name).tobytes())
    return {
        "train_file": fingerprint([*examples, *(contexts if args.negative_contexts else ())]),
        "eval_file": fingerprint(eval_examples),
        "model_dir": identity(args.model_dir),
        "windows": of_windows.hexdigest(),
    }


def fingerprint(parts: Iterable[dict | str]) -> str:
    """The sha256 of examples, but for their ids, and of texts, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        content = part
        if isinstance(part, dict):
            starts = list(map(int, part["answers"]["answer_start"]))
            content = part["question"], part["context"], list(part["answers"]["text"]), starts
        digest.update(repr(content).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """The weights as AdamW takes them: matrices are decayed, norms and biases, which are vectors, are not."""
    return [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]


def always_make_masks() -> None:
    """Has transformers 5 make an attention mask for every batch, with sdpa. By itself it asks the device in every
    forward pass whether the batch has padding at all, and the host waits for the reply. In this process, for all
    models."""
    from transformers import AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def always_mask(*args, **settings):
        return sdpa_mask(*args, **settings | {"allow_is_bidirectional_skip": False})

    AttentionMaskInterface.register("sdpa", always_mask)


def require_compiler(device: torch.device) -> None:
    """Raises QAError where --compile can't work: it needs a C++ compiler, and on a GPU the package triton too."""
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", default)
    if shutil.which(compiler) is None:
        raise QAError(
            f"--compile needs a C++ compiler, and {compiler} is not found. Install one (Debian, Ubuntu: apt install "
            "g++; Windows: Visual Studio's build tools; or set CXX), or leave --compile out."
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        name = "triton-windows" if sys.platform == "win32" else "triton"
        raise QAError(f"--compile on a GPU needs the package triton. Run: pip install {name}, or leave --compile out.")
    try:
        torch.compile(torch.exp)(torch.ones(2, device=device))
    except RuntimeError as error:  # whatever dynamo and the compiler under it raise
        reason = str(error).strip().splitlines()[0]
        raise QAError(f"--compile does not work here: {reason}. Leave it out.") from None
