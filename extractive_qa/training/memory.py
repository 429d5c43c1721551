"""How many windows a device takes at once in training: found by trying, halved when memory runs out, under a cap; and
whether a CPU's memory can hold them at all."""

import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from itertools import takewhile

import psutil
import torch
from accelerate.utils import gather_object

from extractive_qa.errors import QAError
from extractive_qa.model import devices
from extractive_qa.model.memory import free_memory

logger = logging.getLogger(__name__)

SHARE_OF_FREE_MEMORY = 0.85
TRY_LESS = "Try --gradient_checkpointing, a smaller --per_device_train_batch_size, or a shorter --max_length; close"
LESS_MEMORY = f"{TRY_LESS} other programs that use the GPU."


# for all but the steps, which go on with less
explain_out_of_memory = partial(devices.explain_out_of_memory, f"out of GPU memory. {LESS_MEMORY}")


def cap_memory(device: torch.device, gib: float | None) -> int | None:
    """Keeps this process from taking more than `gib` GiB of a CUDA card, or 85 % of what is free now. Returns the cap
    in bytes, None on other devices, which have none.

    Beyond the cap torch runs out of memory as on a smaller card, which training can answer. Without one, drivers on
    Windows go on in the system's memory, many times slower. Raises QAError where the card is smaller than `gib`.
    """
    if device.type != "cuda":
        if gib is not None:
            logger.warning(f"--max_gpu_memory {gib:g} has no effect: the device is {device.type}")
        return None
    free, total = torch.cuda.mem_get_info(device)
    cap = int(SHARE_OF_FREE_MEMORY * free) if gib is None else int(gib * 2**30)
    if cap > total:
        raise QAError(f"--max_gpu_memory {gib:g} is more than the card has: {total / 2**30:.1f} GiB. Use less.")
    if cap > free:
        logger.warning(
            f"--max_gpu_memory {gib:g} is more than the {free / 2**30:.1f} GiB that other programs leave free"
        )
    # not the device: accelerate gives "cuda" without a number, which this one function refuses
    torch.cuda.set_per_process_memory_fraction(cap / total, device.index)
    return cap


def largest_that_fits(windows: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of `windows`, the windows of one optimizer step, that `fits`; 0 where not even 1 does.

    Only divisors keep the step as it is with micro-batches of one size. Tried from below, and not beyond the first that
    doesn't fit, so memory is exceeded once at most.
    """
    divisors = [size for size in range(1, windows + 1) if windows % size == 0]
    return max(takewhile(fits, divisors), default=0)


def choose_micro_batch(
    micro_batch_size: int, accumulation: int, accelerator, model: torch.nn.Module, length: int
) -> tuple[int, int]:
    """Micro-batch and accumulation for --per_device_train_batch_size auto: the largest micro-batch that fits, and as
    many windows in an optimizer step as the two numbers given make. Every process gets the same. length: tokens of the
    longest batch.

    A CUDA card is tried out. On a CPU, which is a little faster with more at once, twice what is taken at least, as
    counted for one window, has to be free: from there on require_memory warns. Elsewhere memory has no limit that is
    known, and the two numbers are returned as they are. Raises QAError where not even one window fits a card.
    """
    device, plain = accelerator.device, accelerator.unwrap_model(model)  # processes try alone: one may have less room
    windows = micro_batch_size * accumulation
    if device.type == "cuda":
        logger.info("trying how many windows fit the GPU at once ...")

        def fits(size: int) -> bool:
            return step_fits(plain, size, length)
    elif device.type == "cpu":
        kept, free = bytes_kept(plain, length), free_memory()

        def fits(size: int) -> bool:
            return 2 * memory_needed(plain, size * kept) <= free
    else:
        return micro_batch_size, accumulation
    largest = largest_that_fits(windows, fits)
    if accelerator.num_processes > 1:
        largest = min(gather_object([largest]))
    if largest == 0 and device.type == "cuda":
        raise QAError(f"out of GPU memory with 1 window at once. {LESS_MEMORY}")
    largest = max(1, largest)  # require_memory says whether that can be
    return largest, windows // largest


def step_fits(model: torch.nn.Module, size: int, length: int) -> bool:
    """Whether `size` windows of `length` tokens can go forward and backward while the gradients of earlier ones and
    the optimizer's state are held. Leaves weights, mode and random state as they were, and no memory taken."""
    device = next(model.parameters()).device
    training = model.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            forward_and_backward(model.train(), size, length)
            found = True
        except torch.OutOfMemoryError:
            found = False
    # out of the except clause: the error held on to the tensors
    model.train(training)
    model.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)  # what was tried is not what the training takes
    return found


def forward_and_backward(model: torch.nn.Module, size: int, length: int) -> None:
    """What an optimizer step holds at its peak, twice: the second time the first one's gradients are there."""
    parameters = list(model.parameters())
    state = [torch.zeros_like(parameter) for parameter in parameters for _ in range(2)]  # AdamW's two moments
    ids = torch.zeros((size, length), dtype=torch.int64, device=parameters[0].device)
    for _ in range(2):
        # not model(...), which may be compiled: a compiler would work minutes for every size that is tried
        output = model.forward(input_ids=ids, attention_mask=torch.ones_like(ids))
        # any loss takes the memory that the real one takes
        loss = output.start_logits.float().log_softmax(1).mean() + output.end_logits.float().log_softmax(1).mean()
        loss.backward()
    del state


def smaller_micro_batch(micro_batch_size: int, processes: int) -> int:
    """Half the micro-batch, after running out of GPU memory. Raises QAError where it can't be halved: several
    processes would have to do so at the same step."""
    if micro_batch_size == 1 or processes > 1:
        raise QAError(f"out of GPU memory with {micro_batch_size} window(s) at once. {LESS_MEMORY}")
    torch.cuda.empty_cache()
    half = micro_batch_size // 2
    logger.warning(
        f"out of GPU memory with {micro_batch_size} windows at once; going on with {half}, accumulated to as many"
    )
    return half


def require_memory(accelerator, model: torch.nn.Module, windows: int, length: int) -> None:
    """Compares what a training takes at least, beyond the weights that are loaded, with the memory that is free: warns
    where that is short, raises QAError where it can't be enough. A CUDA card has its own way to say so.

    At least: gradients and AdamW's two moments, fp32, and what `windows` windows of `length` tokens at once keep for
    the backward pass.
    """
    if accelerator.device.type == "cuda":
        return
    model = accelerator.unwrap_model(model)
    kept = windows * bytes_kept(model, length)
    needed, free = memory_needed(model, kept), free_memory()
    found = (
        f"{free / 2**30:.1f} GiB of memory are free here, and training takes at least {needed / 2**30:.1f} GiB more: "
        f"{memory_of_state(model) / 2**30:.1f} for gradients and AdamW's moments, {kept / 2**30:.1f} for {windows} "
        f"window(s) of {length} tokens at once"
    )
    # elsewhere the system finds more than it tells
    if sys.platform == "linux" and needed > free + psutil.swap_memory().free:
        raise QAError(f"{found}. {TRY_LESS} other programs.")
    if 2 * needed > free and accelerator.is_main_process:  # MobileBERT, 4 windows of 384 tokens: 1.7 times was taken
        logger.warning(
            f"{found}, and up to twice that. It may get very slow, or be stopped. {TRY_LESS} other programs."
        )


def memory_of_state(model: torch.nn.Module) -> int:
    """Bytes of the gradients and AdamW's two moments, fp32."""
    return 3 * 4 * sum(parameter.numel() for parameter in model.parameters())


def memory_needed(model: torch.nn.Module, kept: int) -> int:
    """Bytes that all processes of this machine take at least beyond the weights. kept: for the backward pass."""
    return (memory_of_state(model) + kept) * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def bytes_kept(model: torch.nn.Module, length: int) -> int:
    """Bytes that each further window of `length` tokens keeps from the forward to the backward pass: counted in two
    forward passes in training mode. Leaves mode and random state as they were."""
    training = model.training
    with torch.random.fork_rng([]):
        one, two = (bytes_saved(model.train(), windows, length) for windows in (1, 2))
    model.train(training)
    return two - one  # what is kept once, as weights in bf16, is in both


def bytes_saved(model: torch.nn.Module, windows: int, length: int) -> int:
    """Bytes of all tensors that autograd saves in one forward pass of `windows` windows of `length` tokens."""
    saved = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()  # several tensors may share one
        return tensor

    ids = torch.zeros((windows, length), dtype=torch.int64, device=next(model.parameters()).device)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = model.forward(input_ids=ids, attention_mask=torch.ones_like(ids))
    del output  # until here every storage had an address of its own
    return sum(saved.values())
