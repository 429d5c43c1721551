"""Fine-tunes MobileBERT (or any BERT-like encoder) to answer questions, offline.

    python train.py                                   # MobileBERT on SQuAD 1.1, 3 epochs
    python train.py --sample                          # the bundled model and questions: minutes on a CPU
    python train.py --preset best --bf16              # Google's published recipe, with a teacher
    python train.py --resume                          # go on where the last run stopped
    torchrun --nproc_per_node 2 train.py              # two GPUs

Reads --model_dir, --train_file and --eval_file. Writes to --output_dir: final_model (the best epoch by F1, a plain
Hugging Face folder with reader.json), checkpoint-N, training_log.jsonl, training_curve.png and, where
TensorBoard is installed, runs/ for it.
The windows of 1,000 questions and more are kept in data/cache for the next training; the folder may be deleted.
"""

from utils.console import exit_quietly_on_interrupt
from utils.offline import (
    MODEL_DIR,
    OUTPUT_DIR,
    SAMPLE_DATA_DIR,
    SAMPLE_MODEL_DIR,
    SQUAD_DIR,
    TEACHER_DIR,
    go_offline,
)

go_offline()
exit_quietly_on_interrupt()

import argparse
import math
import os
import shutil
import signal
import textwrap
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch.nn.functional import cross_entropy

from utils import console
from utils.attention import attend_window_by_window
from utils.augmentation import join_contexts
from utils.backends import load_encoder
from utils.batches import epoch_batches, micro_batches, pad_batch, padded_length
from utils.checkpoints import (
    delete_earlier_run,
    delete_to_go_back,
    latest_checkpoint,
    lock_output_dir,
    prepare_output_dir,
    read_state,
)
from utils.console import UserError
from utils.devices import (
    choose_attention,
    choose_device,
    choose_precision,
    describe,
    never_wait_for_masks,
    out_of_memory,
    require_compiler,
    used_memory,
)
from utils.distillation import REMEDY, Teachers, ask_teachers, distillation_losses
from utils.families import usable_positions
from utils.feature_cache import cached_train_features
from utils.guard import Guard
from utils.manifest import check_manifest
from utils.micro_batch import LESS_MEMORY, cap_memory, choose_micro_batch, require_memory, smaller_micro_batch
from utils.offline import require, require_model
from utils.pictures import draw_training_curve
from utils.squad import read_examples
from utils.training import Training, plain
from utils.training_log import TrainingLog
from utils.windows import Features, check_window_settings, load_tokenizer

DOWNLOAD = "Run: python download_data.py (or try: python train.py --sample)"
MICRO_BATCH = 4  # windows
PRESETS = {
    # google-research/mobilebert, README: effective batch 32, 5 epochs
    "paper": {"num_train_epochs": 5, "learning_rate": 4e-5, "gradient_accumulation_steps": 8},
}
# docs/RESULTS.md, on another encoder: a larger teacher gains most
PRESETS["best"] = PRESETS["paper"] | {"teacher_dir": [TEACHER_DIR]}
SAMPLE = {
    "model_dir": SAMPLE_MODEL_DIR,
    "train_file": SAMPLE_DATA_DIR / "train.json",
    "eval_file": SAMPLE_DATA_DIR / "dev.json",
    "output_dir": OUTPUT_DIR / "sample",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=console.HelpFormatter, usage="python train.py [options]",
        epilog=console.EXIT_CODES,
    )  # fmt: skip
    add = parser.add_argument_group("files").add_argument
    add("--model_dir", type=Path, default=MODEL_DIR, help="encoder to start from")
    add("--train_file", type=Path, default=SQUAD_DIR, help="questions: JSON, JSON Lines, CSV, Parquet, saved dataset")
    add("--eval_file", type=Path, default=SQUAD_DIR, help="questions to score after each epoch")
    add("--output_dir", type=Path, default=OUTPUT_DIR, help="where everything is written")
    add(
        "--teacher_dir", type=Path, nargs="+", default=None, metavar="PATH",
        help="learn from these models' answers too (distillation); from their mean where there are several. A file of "
        "answers, data/cache/*.teacher, serves as the model that gave them (default: none)",
    )  # fmt: skip
    add("--sample", action="store_true", help="the bundled model and questions, to output/sample")
    add("--resume", action="store_true", help="go on from the newest checkpoint in --output_dir, with its settings")
    add("--overwrite_output_dir", action="store_true", help="delete an earlier run in --output_dir first")
    add("--skip_bad_examples", action="store_true", help="leave invalid records out instead of refusing the file")
    add("--verify_files", action="store_true", help="compare the sha256 of what was downloaded first, not only sizes")
    add("--max_train_samples", type=int, default=None, help="use only so many questions (default: all)")
    add("--max_eval_samples", type=int, default=None, help="score only so many questions (default: all)")

    add = parser.add_argument_group("what is learned").add_argument
    add(
        "--preset", choices=sorted(PRESETS), default=None,
        help="paper: 5 epochs, 4e-5, batch 32; best: the same with the teacher of download_data.py --teacher, or "
        "another --teacher_dir (default: none)",
    )  # fmt: skip
    add("--num_train_epochs", type=int, default=3, help="passes over the questions")
    add("--max_steps", type=int, default=-1, help="stop after so many optimizer steps; -1: by epochs")
    add(
        "--per_device_train_batch_size", type=number_or_auto, default=MICRO_BATCH, metavar="N",
        help=f"windows at once (micro-batch); auto: the most that fit the GPU, accumulated to as many as {MICRO_BATCH} "
        "would be (the same windows in a step, so the same is learned)",
    )  # fmt: skip
    add("--gradient_accumulation_steps", type=int, default=4, help="micro-batches per optimizer step")
    add("--learning_rate", type=float, default=3e-5, help="peak learning rate")
    add("--lr_scheduler_type", choices=["linear", "cosine"], default="linear", help="decay after the warm-up, to 0")
    add("--warmup_ratio", type=float, default=0.1, help="share of all steps in which the learning rate rises")
    add("--weight_decay", type=float, default=0.01, help="not applied to norms and biases")
    add("--adam_epsilon", type=float, default=1e-6, help="AdamW's epsilon")
    add("--max_grad_norm", type=float, default=1.0, help="gradients are clipped to this norm; 0: not")
    add(
        "--joined_contexts", type=float, default=0.0, metavar="SHARE",
        help="share of the questions, 0 to 1, that are asked of two to four neighbouring contexts of the file at once, "
        "for a model that will read long texts",
    )  # fmt: skip
    add("--distillation_weight", type=float, default=0.5, help="share of the teachers in the loss, 1: no labels")
    add("--distillation_temperature", type=float, default=2.0, help="softens the teachers' answers and the student's")
    add("--max_length", type=int, default=384, help="tokens in a window: question, context and special tokens")
    add("--doc_stride", type=int, default=128, help="overlap of neighbouring windows in tokens (not their distance)")
    add("--max_answer_length", type=int, default=30, help="tokens in an answer, at most")
    add("--handle_impossible_answer", action="store_true", help="SQuAD 2: learn from questions without an answer too")
    add("--seed", type=int, default=42, help="of the order of questions, dropout, and the new output layer")

    add = parser.add_argument_group("how it runs").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--mixed_precision", choices=["auto", "no", "bf16", "fp16"], default="auto", help="auto: bf16 where it is fast")
    add("--bf16", dest="mixed_precision", action="store_const", const="bf16", help="short for --mixed_precision bf16")
    add("--fp16", dest="mixed_precision", action="store_const", const="fp16", help="short for --mixed_precision fp16")
    add(
        "--max_gpu_memory", type=float, default=None,
        help="GiB of the GPU that are used at most (default: 85%% of what is free when the training starts)",
    )  # fmt: skip
    add("--gradient_checkpointing", action="store_true", help="less memory, about a third more time")
    add(
        "--compile", action="store_true",
        help="compile forward and backward first (torch.compile): minutes, once; slower after that on the CPU it was "
        "measured on, not measured on a GPU, see docs/RESULTS.md",
    )  # fmt: skip
    add("--per_device_eval_batch_size", type=int, default=32, help="windows at once when scoring")
    add("--logging_steps", type=int, default=20, help="steps between two lines of the log")
    add("--save_steps", type=int, default=500, help="steps between two checkpoints; one more is saved at each epoch")
    add("--save_total_limit", type=int, default=2, help="checkpoints that are kept")
    add("--quiet", action="store_true", help="only results, warnings and errors")

    # a preset, the sample and a resumed run change the defaults; flags that were given still win
    args = parser.parse_args(argv)
    console.be_quiet(args.quiet)
    if args.preset:
        parser.set_defaults(**PRESETS[args.preset])
    if args.sample:
        parser.set_defaults(**SAMPLE)
    args = parser.parse_args(argv)
    if args.resume:
        checkpoint = latest_checkpoint(args.output_dir)
        saved = saved_settings(checkpoint)
        parser.set_defaults(**saved | {"overwrite_output_dir": False})  # that was done when the run began
        args = parser.parse_args(argv)
        args.resume = checkpoint  # the folder to go on from
        if args.per_device_train_batch_size == "auto":  # was found when the run began
            args.per_device_train_batch_size = saved["per_device_train_batch_size"]
    args.teacher_dir = [Path(folder) for folder in args.teacher_dir or ()]
    check_args(args)
    return args


def number_or_auto(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor auto") from None


def check_args(args: argparse.Namespace) -> None:
    """Raises UserError with everything that is wrong with the settings."""
    problems = check_window_settings(args.max_length, args.doc_stride)
    at_least_one = (
        "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "max_answer_length",
        "per_device_eval_batch_size", "logging_steps", "save_steps", "save_total_limit", "max_train_samples",
        "max_eval_samples",
    )  # fmt: skip
    for name in at_least_one:
        if getattr(args, name) not in (None, "auto") and getattr(args, name) < 1:
            problems.append(f"--{name} is {getattr(args, name)}, expected at least 1")
    if args.max_steps == 0 or args.max_steps < -1:
        problems.append(f"--max_steps is {args.max_steps}, expected at least 1, or -1 for no limit")
    for name in ("learning_rate", "adam_epsilon", "distillation_temperature"):
        if not 0 < getattr(args, name) < math.inf:
            problems.append(f"--{name} is {getattr(args, name)}, expected more than 0")
    for name in ("weight_decay", "max_grad_norm"):
        if not 0 <= getattr(args, name) < math.inf:
            problems.append(f"--{name} is {getattr(args, name)}, expected 0 or more")
    if args.max_gpu_memory is not None and not 0 < args.max_gpu_memory < math.inf:
        problems.append(f"--max_gpu_memory is {args.max_gpu_memory}, expected GiB, more than 0")
    for name in ("warmup_ratio", "joined_contexts", "distillation_weight"):
        if not 0 <= getattr(args, name) <= 1:
            problems.append(f"--{name} is {getattr(args, name)}, expected 0 to 1")
    if not 0 <= args.seed < 2**63:
        problems.append(f"--seed is {args.seed}, expected 0 or more")
    if args.resume and args.overwrite_output_dir:
        problems.append("--resume and --overwrite_output_dir exclude each other")
    if problems:
        raise UserError("; ".join(problems) + ". See: python train.py --help")


def saved_settings(checkpoint: Path) -> dict:
    """The settings of the run that is resumed, as its checkpoint has them."""
    settings = read_state(checkpoint)["settings"]
    return {name: value for name, value in settings.items() if name not in ("resume", "output_dir", "quiet")}


def learning_rate_at(step: int, total_steps: int, args: argparse.Namespace) -> float:
    """The learning rate of optimizer step `step` (0-based): linear warm-up, then linear or cosine decay to 0."""
    warmup_steps = math.ceil(args.warmup_ratio * total_steps)
    if step < warmup_steps:
        return args.learning_rate * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if args.lr_scheduler_type == "cosine":
        return args.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return args.learning_rate * (1 - progress)


def window_losses(start_logits, end_logits, batch):
    """Cross-entropy of each window, (B,), the mean over start and end. Padding takes no part in the softmax, so a
    window's loss does not depend on how far its batch is padded."""
    padding = batch["attention_mask"] == 0
    start = cross_entropy(
        start_logits.float().masked_fill(padding, -torch.inf), batch["start_positions"], reduction="none"
    )
    end = cross_entropy(end_logits.float().masked_fill(padding, -torch.inf), batch["end_positions"], reduction="none")
    return (start + end) / 2


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array on the device. To a CUDA card it goes from pinned memory, and nobody waits for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def accumulate_gradients(run: Training, batch_indices: np.ndarray) -> torch.Tensor:
    """Adds the gradients of one effective batch's mean loss, micro-batch by micro-batch.

    Returns this process's share of that loss. Dropout is drawn anew from (seed, step, process) for every step, so a
    resumed run draws what it would have drawn.
    """
    accelerator, model = run.accelerator, run.model
    rank, processes = accelerator.process_index, accelerator.num_processes
    pad_id = accelerator.unwrap_model(model).config.pad_token_id or 0
    torch.manual_seed((run.args.seed + run.step) * processes + rank)
    total = torch.zeros((), device=accelerator.device)
    parts = micro_batches(batch_indices, run.micro_batch_size, rank, processes)
    for number, (indices, share) in enumerate(parts, 1):
        batch = pad_batch([run.features[i] for i in indices], run.args.max_length, pad_id)
        batch = {name: to_device(array, accelerator.device) for name, array in batch.items()}
        weights = to_device(share, accelerator.device)  # (B,)
        # processes average their gradients once, at the last micro-batch
        with nullcontext() if number == len(parts) else accelerator.no_sync(model):
            output = run.forward(**{name: batch[name] for name in run.inputs})
            losses = window_losses(output.start_logits, output.end_logits, batch)  # (B,)
            if run.teachers:
                losses = join_teachers(run, losses, output, batch["attention_mask"], indices)
            # every window counts the same, however the batch was cut
            loss = (losses * weights).sum() / len(batch_indices)
            accelerator.backward(loss * processes)
        total += loss.detach()
    return total


def join_teachers(run: Training, losses: torch.Tensor, output, attention_mask: torch.Tensor, indices: np.ndarray):
    """The labels' losses of the windows `indices`, (B,), joined with the teachers' in their shares."""
    weight, temperature = run.args.distillation_weight, run.args.distillation_temperature
    targets = run.teachers.probabilities(indices, attention_mask.shape[1], temperature)  # (2, B, L)
    targets = to_device(targets, attention_mask.device)
    taught = distillation_losses(output.start_logits, output.end_logits, targets, attention_mask, temperature)
    return (1 - weight) * losses + weight * taught


def load_questions(args: argparse.Namespace) -> tuple[list[dict], list[dict]]:
    """The examples to train on and the examples to score. Raises UserError for all that can be wrong with them."""
    require_model(args.model_dir, DOWNLOAD)
    for teacher in args.teacher_dir:
        if not teacher.is_file():  # of answers
            require_model(teacher, REMEDY)
    for path in dict.fromkeys((args.model_dir, *args.teacher_dir, args.train_file, args.eval_file)):
        if require(path, "a file or folder with questions", DOWNLOAD).is_dir():
            check_manifest(path, full=args.verify_files)
    console.note("reading questions ...")
    impossible = args.handle_impossible_answer
    examples = read_examples(args.train_file, "train", args.skip_bad_examples, impossible)
    eval_examples = read_examples(args.eval_file, "validation", args.skip_bad_examples, impossible)
    return examples[: args.max_train_samples], eval_examples[: args.max_eval_samples]


def start_accelerator(args: argparse.Namespace) -> tuple[Accelerator, str]:
    """The device (or devices) and the precision to train in."""
    device = choose_device(args.device)
    precision = choose_precision(args.mixed_precision, device)
    if device.type == "cuda":
        if precision != "no":
            torch.set_float32_matmul_precision("high")  # TF32 in what stays fp32
        if device.index is not None:
            torch.cuda.set_device(device)
    # the other processes wait while the first one scores, longer than the usual time-out
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu", kwargs_handlers=[patience])
    if cap := cap_memory(accelerator.device, args.max_gpu_memory):
        console.say(f"GPU memory: at most {cap / 2**30:.1f} GiB")
    if args.compile:
        require_compiler(accelerator.device)
    return accelerator, precision


def start_teachers(
    args: argparse.Namespace, examples: list[dict], moved: np.ndarray, features: Features, accelerator: Accelerator,
    precision: str,
) -> Teachers | None:  # fmt: skip
    """What the models of --teacher_dir say of the windows, before the student needs the memory. They are asked of the
    examples' own contexts."""
    if not args.teacher_dir:
        return None
    with accelerator.main_process_first():  # it keeps on disk what they say, the others read it
        return ask_teachers(
            args.teacher_dir, examples, features, str(accelerator.device),
            precision="bf16" if precision == "bf16" else "no",  # MobileBERT overflows fp16
            moved=moved,
        )  # fmt: skip


def start_model(args: argparse.Namespace, model_dir: Path, accelerator: Accelerator, precision: str):
    """The model of `model_dir` and its optimizer, on the device."""
    torch.manual_seed(args.seed)  # the new output layer
    remedy = delete_to_go_back(model_dir) if model_dir == args.resume else DOWNLOAD
    model, _ = load_encoder(model_dir, remedy, choose_attention(accelerator.device, precision))
    positions = usable_positions(model.config.to_dict())
    if positions and args.max_length > positions:
        raise UserError(
            f"--max_length {args.max_length} is more than the {positions} positions of {args.model_dir}. "
            f"Use --max_length {positions} or less."
        )
    if accelerator.device.type == "cuda":
        never_wait_for_masks()
    elif accelerator.device.type == "cpu" and not args.compile:
        attend_window_by_window(model)
    if args.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:  # MobileBERT before transformers 5
            raise UserError(
                f"--gradient_checkpointing: transformers {transformers.__version__} can't do it for this model "
                f"({model.config.model_type}). Leave it out, or install the versions of requirements.txt."
            )
        # its name in transformers 5, and before
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    # norms and biases are vectors; all else is decayed
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": args.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = accelerator.device.type in ("cuda", "cpu")
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, eps=args.adam_epsilon, fused=fused)
    return accelerator.prepare(model, optimizer)


def train(run: Training, log: TrainingLog, bar) -> None:
    """The loop: forward, backward and accumulation, guard, step, log, checkpoint, evaluation."""
    args, accelerator, model, optimizer = run.args, run.accelerator, run.model, run.optimizer
    steps_per_epoch, total_steps = run.steps_per_epoch, run.total_steps
    questions_per_window = run.questions / len(run.features)
    guard, epoch, windows, since = Guard(run.precision), -1, 0, time.monotonic()
    model.train()
    while True:
        # at the end of an epoch, and of the training: score, unless that was done before the run was resumed
        if run.step and (run.step % steps_per_epoch == 0 or run.step == total_steps) and not log.has_scores(run.step):
            run.evaluate(log)
            since, windows = time.monotonic(), 0
        if run.step >= total_steps:
            break
        if run.step // steps_per_epoch != epoch:
            epoch = run.step // steps_per_epoch
            batches = epoch_batches(run.features.lengths, run.effective_batch, args.seed, epoch)
        batch_indices = batches[run.step % steps_per_epoch]

        # forward and backward; out of memory: the whole effective batch again in smaller pieces
        try:
            loss = accumulate_gradients(run, batch_indices)
        except torch.OutOfMemoryError:
            loss = None
        if loss is None:  # out of the except clause: the error held on to the tensors
            optimizer.zero_grad()
            run.micro_batch_size = smaller_micro_batch(run.micro_batch_size, accelerator.num_processes)
            continue
        grad_norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm or math.inf)

        # the guard: what is not finite never reaches the weights
        totals = torch.stack([loss, torch.full_like(loss, len(run.stop_signals))])
        totals = accelerator.reduce(totals, "sum") if accelerator.num_processes > 1 else totals
        loss, stop, grad_norm = [*totals, grad_norm]
        loss, stop, grad_norm = torch.stack([loss, stop, grad_norm]).tolist()  # the step's only synchronisation
        rate = learning_rate_at(run.step, total_steps, args)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if guard.check(run.step + 1, loss, grad_norm) or accelerator.scaler:  # fp16's scaler skips by itself
            optimizer.step()
        optimizer.zero_grad()
        run.step += 1

        run.losses.append(loss)
        windows += len(batch_indices)
        bar.update()
        if run.step % args.logging_steps == 0 or run.step == total_steps:
            line = {
                "step": run.step,
                "epoch": run.step / steps_per_epoch,
                "loss": sum(run.losses) / len(run.losses),
                "learning_rate": rate,
                "grad_norm": grad_norm,
                "questions_per_second": windows * questions_per_window / (time.monotonic() - since),
                "memory_mb": used_memory(accelerator.device) / 2**20,
            }
            log.write(line)
            run.losses, windows, since = [], 0, time.monotonic()
            bar.set_postfix_str(
                f"loss {line['loss']:.3f}, {line['questions_per_second']:.1f} questions/s, "
                f"{line['memory_mb']:,.0f} MB, lr {rate:.1e}",
                refresh=False,  # the next step shows it
            )
        if stop or run.step % args.save_steps == 0 or run.step % steps_per_epoch == 0 or run.step == total_steps:
            run.save()
        if stop:
            raise KeyboardInterrupt(run.how_to_go_on(f"stopped after step {run.step}, saved"))


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with lock_output_dir(args.output_dir):
        try:
            fine_tune(args)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            # outside of the steps, which go on with less
            raise UserError(f"out of GPU memory. {LESS_MEMORY}") from None


def fine_tune(args: argparse.Namespace) -> None:
    """From the files to the final model."""
    needed = args.model_dir, *args.teacher_dir, args.train_file, args.eval_file
    prepare_output_dir(args.output_dir, args.resume, args.overwrite_output_dir, needed)
    examples, eval_examples = load_questions(args)
    joined, moved = join_contexts(examples, args.joined_contexts, args.seed)
    features = cached_train_features(joined, load_tokenizer(args.model_dir), args.max_length, args.doc_stride)
    accelerator, precision = start_accelerator(args)
    teachers = start_teachers(args, examples, moved, features, accelerator, precision)
    model, optimizer = start_model(args, args.resume or args.model_dir, accelerator, precision)
    longest = padded_length(int(features.lengths.max()), args.max_length)
    if args.per_device_train_batch_size == "auto":
        args.per_device_train_batch_size, args.gradient_accumulation_steps = choose_micro_batch(
            MICRO_BATCH, args.gradient_accumulation_steps, accelerator, model, longest
        )
    require_memory(accelerator, model, args.per_device_train_batch_size, longest)
    run = Training(
        args, features, len(examples), eval_examples, accelerator, precision, model, optimizer,
        micro_batch_size=args.per_device_train_batch_size, teachers=teachers,
    )  # fmt: skip
    if args.resume:
        run.resume(args.resume)
    if accelerator.is_main_process:
        run.require_disk_space()
        if args.overwrite_output_dir:
            delete_earlier_run(args.output_dir)  # only now that nothing else can be refused
    log = TrainingLog(args.output_dir, run.step, writes=accelerator.is_main_process)
    console.say(describe_run(run))

    heed_signals(run)
    began, first_step = time.monotonic(), run.step
    with console.progress(
        desc="training",
        total=run.total_steps,
        initial=run.step,
        unit=" steps",
        smoothing=0.05,
        bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
    ) as bar:
        train(run, log, bar)

    peak = used_memory(accelerator.device, peak=True) / 2**20
    console.say(
        f"{run.step - first_step:,} steps in {(time.monotonic() - began) / 60:.1f} min, peak memory {peak:,.0f} MB"
    )
    if accelerator.is_main_process:
        draw_training_curve(log.lines, args.output_dir / "training_curve.png")
        best = log.best
        print(f"best epoch {best['epoch']:.2f}: EM {best['exact_match']:.2f}, F1 {best['f1']:.2f}")
        final_model = require(args.output_dir / "final_model", "the model of the best epoch", "Was it deleted?")
        megabytes = sum(path.stat().st_size for path in final_model.iterdir()) / 2**20
        print(f"saved {console.shown(final_model)} ({megabytes:.0f} MB)")
    accelerator.end_training()


def heed_signals(run: Training) -> None:
    """Ctrl-C and SIGTERM end the training between two steps, where it can be saved. Ctrl-C later than a second after
    that ends it at once: torchrun and impatient fingers send several at a time."""

    def stop(number: int, _) -> None:
        now = time.monotonic()
        if run.stop_signals and number == signal.SIGINT and now - run.stop_signals[0] > 1:
            raise KeyboardInterrupt(run.how_to_go_on("stopped at once, steps since the last checkpoint are lost"))
        if not run.stop_signals:  # straight to the terminal: the bar may be in the middle of a print
            os.write(2, b"\nstopping after this step, Ctrl-C again stops at once ...\n")
        run.stop_signals.append(now)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def describe_run(run: Training) -> str:
    """What is about to happen, in a few lines."""
    values = {name: plain(value, console.shown) for name, value in sorted(vars(run.args).items())}
    settings = " ".join(f"{name}={value}" for name, value in values.items())
    width = min(120, shutil.get_terminal_size((120, 24)).columns)
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    lines = [
        textwrap.fill(f"settings: {settings}", width, subsequent_indent="  ", break_on_hyphens=False),
        f"device: {describe(run.accelerator.device)}, {run.accelerator.num_processes} process(es), "
        f"mixed precision: {run.precision}",
        f"model: {parameters / 1e6:.1f} M parameters, {4 * parameters / 2**20:.0f} MB in fp32",
        f"data: {run.questions:,} questions in {len(run.features):,} windows, {len(run.eval_examples):,} questions to "
        "score",
        f"steps: {run.total_steps:,} of {run.effective_batch} windows, {run.micro_batch_size} at once",
    ]
    if run.args.resume:
        lines.append(f"resumed from {console.shown(run.args.resume)} after step {run.step}")
    return "\n".join(lines)


if __name__ == "__main__":
    console.run(main)
