"""Fine-tunes MobileBERT (or any BERT-like encoder) to answer questions, offline.

    python train.py                                   # MobileBERT on SQuAD 1.1, 3 epochs
    python train.py --sample                          # the bundled model and questions: minutes on a CPU
    python train.py --preset best --bf16              # Google's published recipe, with a teacher
    python train.py --resume                          # go on where the last run stopped
    torchrun --nproc_per_node 2 train.py              # two GPUs

Reads --model_dir, --train_file and --eval_file. Writes to --output_dir: final_model (the best epoch by F1, a plain
Hugging Face folder with reader.json), checkpoint-N, training_log.jsonl, training_curve.png and, where TensorBoard is
installed, runs/. The windows of 1,000 questions and more are kept in data/cache for the next training; that folder may
be deleted.
"""

from utils.console import exit_quietly_on_interrupt
from utils.offline import MODEL_DIR, OUTPUT_DIR, SAMPLE_FILES, SAMPLE_MODEL_DIR, SQUAD_DIR, TEACHER_DIR, go_offline

go_offline()  # before any Hugging Face library is imported
exit_quietly_on_interrupt()  # Ctrl-C ends the imports without a traceback

import argparse
import math
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

# nothing here imports torch: what is wrong with a flag or a file is said at once
from extractive_qa.data.examples import read_examples
from extractive_qa.files.atomic import explain_write_failure
from extractive_qa.files.reading import require
from extractive_qa.model.folder import card_languages
from extractive_qa.text import as_argument, shown
from extractive_qa.training import checkpoints
from extractive_qa.training.settings import check_files, check_flags, epochs, follow, inputs, number_or_auto
from utils import console

# settings: one block, one line a flag. Names are those of transformers' TrainingArguments and run_qa.py

MICRO_BATCH = 4  # windows; with MobileBERT they take 2.4 GB in fp32, 1.7 GB in bf16: a 4 GB card will do
# google-research/mobilebert, README: 5 epochs, 4e-5, effective batch 4 x 8 = 32 windows
PRESETS = {"paper": {"num_train_epochs": 5, "learning_rate": 4e-5, "gradient_accumulation_steps": 8}}
# of all that docs/EXPERIMENTS.md tried, a larger teacher gains most
PRESETS["best"] = PRESETS["paper"] | {"teacher_dir": [TEACHER_DIR]}
SAMPLE = {
    "model_dir": SAMPLE_MODEL_DIR, "train_file": SAMPLE_FILES["train"], "eval_file": SAMPLE_FILES["dev"],
    "output_dir": OUTPUT_DIR / "sample", "eval_on_start": True, "logging_steps": 3,
}  # fmt: skip


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The settings of a run. Raises QAError where one can't be, or --resume finds no checkpoint."""
    parser = console.make_parser(__doc__, "python train.py [options]")
    # fmt: off
    # what is read, and where to; paths are seen from the current folder
    add = parser.add_argument_group("files").add_argument
    add("--model_dir", type=Path, default=MODEL_DIR, help="encoder to start from")
    add("--train_file", type=Path, default=SQUAD_DIR, help="questions: JSON, JSON Lines, CSV, Parquet, saved dataset")
    add("--eval_file", type=Path, default=SQUAD_DIR, help="questions to score after each epoch")
    add("--output_dir", type=Path, default=OUTPUT_DIR, help="where everything is written")
    add("--teacher_dir", type=Path, nargs="+", metavar="PATH",
        help="learn from these models' answers too (distillation); from their mean where there are several. A file of "
        "answers, data/cache/*.teacher, serves as the model that gave them (default: none)")
    add("--sample", action="store_true", help="the bundled model and questions, to output/sample")
    add("--resume", action="store_true", help="go on from the newest checkpoint in --output_dir, with its settings")
    add("--overwrite_output_dir", action="store_true", help="delete an earlier run in --output_dir first")
    console.add_file_flags(add)
    add("--verify_files", action="store_true", help="compare the sha256 of what was downloaded first, not only sizes")
    add("--max_train_samples", type=int, help="use only so many questions (default: all)")
    add("--max_eval_samples", type=int, help="score only so many questions (default: all)")

    # these decide what is learned, and must stay the same when a run is resumed. A step learns from 4 x 4 = 16 windows
    add = parser.add_argument_group("what is learned").add_argument
    add("--preset", choices=sorted(PRESETS),
        help="paper: 5 epochs, 4e-5, batch 32; best: the same with the teacher of download_data.py --teacher, or "
        "another --teacher_dir (default: none)")
    add("--num_train_epochs", type=epochs, default=3, metavar="N",
        help="passes over the questions, 0.5 too, up to a whole step; scored after each pass, and at the end")
    add("--max_steps", type=int, default=-1, help="stop after so many optimizer steps; -1: by epochs")
    add("--per_device_train_batch_size", type=number_or_auto, default=MICRO_BATCH, metavar="N",
        help="windows at once (micro-batch); auto: the most that fit the GPU, or a CPU's free memory twice, "
        f"accumulated to as many as {MICRO_BATCH} would be (the same windows in a step, so the same is learned)")
    add("--gradient_accumulation_steps", type=int, default=4, help="micro-batches per optimizer step")
    add("--learning_rate", type=float, default=3e-5, help="peak learning rate")
    add("--lr_scheduler_type", choices=["linear", "cosine"], default="linear", help="decay after the warm-up, to 0")
    add("--warmup_ratio", type=float, default=0.1, help="share of all steps in which the learning rate rises")
    add("--weight_decay", type=float, default=0.01, help="not applied to norms and biases")
    add("--adam_epsilon", type=float, default=1e-6, help="AdamW's epsilon")  # BERT's; PyTorch's own is 1e-8
    add("--max_grad_norm", type=float, default=1.0, help="gradients are clipped to this norm; 0: not")
    add("--joined_contexts", type=float, default=0.0, metavar="SHARE",
        help="share of the questions, 0 to 1, that are asked of two to four neighbouring contexts of the file at once, "
        "for a model that will read long texts")
    add("--negative_contexts", type=float, default=0.0, metavar="N",
        help="other contexts of the file that each question is asked of in an epoch, none with its answer, three of "
        "four among its best by BM25; 0.5: one for every second question. To tell absent answers; each costs a window")
    add("--distillation_weight", type=float, default=0.5, help="share of the teachers in the loss, 1: no labels")
    add("--distillation_temperature", type=float, default=2.0, help="softens the teachers' answers and the student's")
    add("--keep_layers", metavar="N",
        help="start from a shorter encoder: the first N layers of --model_dir, as the upper ones are missed least "
        "(arXiv 2004.03844), or those listed, as 0,2,3,5 (default: all). --teacher_dir may be the whole model")
    add("--attention_dropout", type=float, metavar="SHARE", help="of the attention's weights (default: the model's)")
    add("--hidden_dropout", type=float, metavar="SHARE", help="of all other layers (default: the model's)")
    add("--max_length", type=int, default=384, help="tokens in a window: question, context and special tokens")
    add("--doc_stride", type=int, default=128, help="overlap of neighbouring windows in tokens (not their distance)")
    add("--max_answer_length", type=int, default=30, help="tokens in an answer, at most")
    add("--handle_impossible_answer", action="store_true", help="SQuAD 2: learn from questions without an answer too")
    add("--seed", type=int, default=42, help="of the order of questions, dropout, and the new output layer")

    # these don't, but for rounding
    add = parser.add_argument_group("how it runs").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--mixed_precision", choices=["auto", "no", "bf16", "fp16"], default="auto", help="auto: bf16 where it is fast")
    add("--bf16", dest="mixed_precision", action="store_const", const="bf16", help="short for --mixed_precision bf16")
    add("--fp16", dest="mixed_precision", action="store_const", const="fp16", help="short for --mixed_precision fp16")
    add("--max_gpu_memory", type=float, help="GiB of the GPU that are used at most (default: 85%% of what is free)")
    add("--gradient_checkpointing", action="store_true", help="less memory, about a third more time")
    add("--compile", action="store_true",
        help="torch.compile: minutes, once; then slower on a CPU (docs/EXPERIMENTS.md), not measured on a GPU")
    add("--per_device_eval_batch_size", type=int, default=32, help="windows at once when scoring")
    add("--eval_on_start", action="store_true", help="score the model before the first step too (on with --sample)")
    add("--logging_steps", type=int, default=20, help="steps between two lines of the log")
    add("--save_steps", type=int, default=500, help="steps between two checkpoints; one more is saved at each epoch")
    add("--save_total_limit", type=int, default=2, help="checkpoints that are kept")
    add("--quiet", action="store_true", help="only results, warnings and errors")
    # fmt: on

    # parsed again with other defaults: those of a preset, the sample, a resumed run. Flags that were given still win
    parser.set_defaults(project_dir=console.PROJECT_ROOT)  # for a run that is resumed after the project was moved
    args = parser.parse_args(argv)
    console.be_quiet(args.quiet)
    if args.preset:
        parser.set_defaults(**PRESETS[args.preset])
    if args.sample:
        parser.set_defaults(**SAMPLE)
    args = parser.parse_args(argv)
    if args.resume:
        checkpoint = checkpoints.latest_checkpoint(args.output_dir)
        # the files may have moved with the run; what they hold is compared with what it was
        saved = follow(checkpoints.read_state(checkpoint)["settings"], args)
        # where the run now is, and how much it says, is new; overwriting was done when it began
        own = {"resume", "output_dir", "quiet", "overwrite_output_dir", "project_dir"}
        parser.set_defaults(**{name: value for name, value in saved.items() if name not in own})
        args = parser.parse_args(argv)
        args.resume = checkpoint  # the folder from now on
        if args.per_device_train_batch_size == "auto":  # was found when the run began
            args.per_device_train_batch_size = saved["per_device_train_batch_size"]
    args.teacher_dir = [Path(folder) for folder in args.teacher_dir or ()]
    check_flags(args)
    return args


def parse_and_check(argv: list[str] | None = None) -> argparse.Namespace:
    args = parse_args(argv)
    check_files(args)
    return args


if __name__ == "__main__":
    # now, as the imports below take seconds: a wrong flag or a missing file is told at once
    settings = console.run(parse_and_check, more_follows=True)

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from extractive_qa.model.devices import used_memory
from extractive_qa.model.families import padding
from extractive_qa.preprocessing.batches import epoch_batches, micro_batches, pad_batch, padded_length
from extractive_qa.preprocessing.unknown import describe_unknown
from extractive_qa.preprocessing.windows import load_tokenizer
from extractive_qa.processes import Watch
from extractive_qa.report.charts import draw_training_curve
from extractive_qa.training import memory
from extractive_qa.training.augmentation import join_contexts
from extractive_qa.training.distillation import distillation_losses, teacher_predictions
from extractive_qa.training.finite_guard import FiniteGuard
from extractive_qa.training.log import TrainingLog
from extractive_qa.training.negatives import Negatives
from extractive_qa.training.run import Training, stop_between_steps
from extractive_qa.training.start import fingerprints, require_known_tokens, start_accelerator, start_model
from utils.preprocessing import CACHE_DIR, WORTH_A_FILE, cached_train_features

# data, device, model, optimizer


def load_questions(args: argparse.Namespace) -> tuple[list[dict], list[dict], list[str]]:
    """The examples to train on, the examples to score, and all contexts of the training file. Raises QAError with all
    that is wrong with them."""
    console.note("reading questions ...")
    options = {"impossible": args.handle_impossible_answer} | console.file_options(args)
    # a folder of datasets has both parts, a file holds one
    examples = read_examples(args.train_file, "train", **options)
    eval_examples = read_examples(args.eval_file, "validation", **options)
    contexts = list(dict.fromkeys(example["context"] for example in examples))
    return examples[: args.max_train_samples], eval_examples[: args.max_eval_samples], contexts


def prepare(args: argparse.Namespace) -> Training:
    """From files to a training before its first step. Q questions become N windows."""
    # data: a context is cut into windows of max_length tokens, and the windows are what is learned from
    examples, eval_examples, contexts = load_questions(args)
    joined, moved = join_contexts(examples, args.joined_contexts, args.seed)  # moved: characters, (Q,)
    tokenizer = load_tokenizer(args.model_dir)
    require_known_tokens(args.model_dir, tokenizer)
    windows = tokenizer, args.max_length, args.doc_stride
    features, negatives = cached_train_features(joined, *windows), None
    if args.negative_contexts:
        share = args.negative_contexts
        negatives = Negatives(examples, features, contexts, *windows, share, args.seed, console.progress)
    contents = fingerprints(args, examples, contexts, eval_examples, features)

    # device: the first of CUDA, Apple's GPU and the CPU; bf16 where the hardware computes in it
    accelerator, precision = start_accelerator(args)
    contexts = [example["context"] for example in joined]
    unknown = describe_unknown(features, contexts, tokenizer, card_languages(args.model_dir))
    if unknown and accelerator.is_main_process:  # of several processes one speaks
        console.warn(unknown)

    # teachers answer before the student needs the memory, and of the contexts as they were
    teachers = None
    if args.teacher_dir:
        with accelerator.main_process_first():  # it keeps their answers on disk, the others read them
            teachers = teacher_predictions(
                args.teacher_dir, examples, features, str(accelerator.device),
                precision="bf16" if precision == "bf16" else "no",  # MobileBERT overflows fp16
                folder=CACHE_DIR, keep=len(examples) >= WORTH_A_FILE, moved=moved, progress=console.progress,
            )  # fmt: skip

    # model and optimizer
    model, optimizer = start_model(args, accelerator, precision)

    # micro-batch: windows at once, such that the longest fit the memory
    pads = padding(accelerator.unwrap_model(model).config.to_dict(), tokenizer)  # which token, and how many are seen
    longest = args.max_length if negatives else padded_length(int(features.lengths.max()), args.max_length, pads[1])
    if args.per_device_train_batch_size == "auto":
        args.per_device_train_batch_size, args.gradient_accumulation_steps = memory.choose_micro_batch(
            MICRO_BATCH, args.gradient_accumulation_steps, accelerator, model, longest
        )
    memory.require_memory(accelerator, model, args.per_device_train_batch_size, longest)
    return Training(
        args, features, len(examples), eval_examples, accelerator, precision, model, optimizer,
        micro_batch_size=args.per_device_train_batch_size, padding=pads, teachers=teachers, negatives=negatives,
        contents=contents, progress=console.progress,
    )  # fmt: skip


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array on the device. To a CUDA card it goes from pinned memory, and nobody waits for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


# learning rate and losses


def learning_rate_at(step: int, total_steps: int, args: argparse.Namespace) -> float:
    """The learning rate of optimizer step `step` (0-based): linear warm-up, then linear or cosine decay to 0. It
    depends on the step alone, so a resumed run needs no state of it."""
    warmup_steps = math.ceil(args.warmup_ratio * total_steps)
    # up, and not from 0: a step at that rate learns nothing
    if step < warmup_steps:
        return args.learning_rate * (step + 1) / (warmup_steps + 1)
    # down
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)  # 0 to 1
    if args.lr_scheduler_type == "cosine":
        return args.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return args.learning_rate * (1 - progress)


def window_losses(start_logits, end_logits, batch):
    """Cross-entropy of each window, (B,), the mean over start and end. logits: (B, L). Padding takes no part in the
    softmax, so a window's loss does not depend on how far its batch is padded."""
    padding = batch["attention_mask"] == 0  # (B, L)
    # positions are 0, the [CLS] token, where the answer is not in this window
    start, end = (
        cross_entropy(logits.float().masked_fill(padding, -torch.inf), batch[positions], reduction="none")
        for logits, positions in ((start_logits, "start_positions"), (end_logits, "end_positions"))
    )
    return (start + end) / 2  # (B,)


def accumulate_gradients(run: Training, batch_indices: np.ndarray) -> torch.Tensor:
    """Adds the gradients of one effective batch's mean loss, micro-batch by micro-batch. Returns this process's share
    of that loss."""
    args, accelerator, model = run.args, run.accelerator, run.model
    device, rank, processes = accelerator.device, accelerator.process_index, accelerator.num_processes
    # dropout is drawn from (seed, step, process): a resumed run draws what it would have drawn
    torch.manual_seed((args.seed + run.step) * processes + rank)
    total = torch.zeros((), device=device)  # stays on the device: to fetch it would wait for the GPU
    # this process's windows as pairs of (B,): indices into the features, and weights
    parts = micro_batches(batch_indices, run.micro_batch_size, rank, processes)
    for number, (indices, weights) in enumerate(parts, 1):
        batch = pad_batch([run.features[i] for i in indices], args.max_length, *run.padding)
        batch = {name: to_device(array, device) for name, array in batch.items()}  # (B, L) and (B,)
        # processes average their gradients once, at the last micro-batch
        with nullcontext() if number == len(parts) else accelerator.no_sync(model):
            # autocast computes in bf16 or fp16; the logits, (B, L), and the losses are fp32
            output = run.forward(**{name: batch[name] for name in run.inputs})
            losses = window_losses(output.start_logits, output.end_logits, batch)  # (B,)
            # teachers: the student's answers are drawn to theirs, and to the labels
            if run.teachers:
                temperature, mask = args.distillation_temperature, batch["attention_mask"]
                targets = run.teachers.probabilities(indices, mask.shape[1], temperature)  # (2, B, L)
                targets = to_device(targets, device)
                taught = distillation_losses(output.start_logits, output.end_logits, targets, mask, temperature)
                # what lacks the answer they were not asked of: there the label alone counts
                share = args.distillation_weight * run.teachers.know(indices)  # (B,)
                own, theirs = (to_device(part.astype(np.float32), device) for part in (1 - share, share))
                losses = own * losses + theirs * taught
            # divided by the windows of the whole step: each counts the same, however the batch was cut. A weight is 0
            # where a window only fills up a process's share
            loss = (losses * to_device(weights, device)).sum() / len(batch_indices)
            accelerator.backward(loss * processes)  # times processes, as their gradients are averaged
        total += loss.detach()
    return total


# the loop


def train(run: Training, log: TrainingLog, bar) -> None:
    """Forward, backward and accumulation, guard, step, log, checkpoint, evaluation."""
    args, accelerator, model, optimizer = run.args, run.accelerator, run.model, run.optimizer
    steps_per_epoch, total_steps = run.steps_per_epoch, run.total_steps
    questions_per_window = run.questions / len(run.features)  # below 1: long contexts have several windows
    guard, epoch = FiniteGuard(run.precision), -1
    windows, since = 0, time.monotonic()  # seen since then, for the speed in the log
    model.train()  # dropout on
    while True:
        # at the end of an epoch, and of the training: score, unless that was done before the run was resumed. The best
        # model so far is saved as final_model
        due = run.step % steps_per_epoch == 0 or run.step == total_steps
        if due and (run.step or args.eval_on_start) and not log.has_scores(run.step):
            for line in run.evaluate(log):
                console.write(line, sys.stdout)  # above the bar
            windows, since = 0, time.monotonic()
        if run.step >= total_steps:
            break

        # the windows of this step, of like length for little padding: a function of (seed, epoch, step), so a resumed
        # run goes through the same
        if run.step // steps_per_epoch != epoch:
            epoch = run.step // steps_per_epoch
            if run.negatives:  # others in each epoch, as many
                run.features = run.negatives.of_epoch(epoch)
            batches = epoch_batches(run.features.lengths, run.effective_batch, args.seed, epoch)
        batch_indices = batches[run.step % steps_per_epoch]

        # forward and backward; out of memory: the whole effective batch again in smaller pieces
        try:
            loss = accumulate_gradients(run, batch_indices)
        except torch.OutOfMemoryError:
            loss = None
        if loss is None:  # out of the except clause: the error held on to the tensors
            optimizer.zero_grad()
            run.micro_batch_size = memory.smaller_micro_batch(run.micro_batch_size, accelerator.num_processes)
            continue
        # clipped in place; the norm, (), is that of before
        grad_norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm or math.inf)

        # sums over all processes, so that all know the loss, and whether one of them was told to stop
        totals = torch.stack([loss, torch.full_like(loss, len(run.stop_signals))])
        totals = accelerator.reduce(totals, "sum") if accelerator.num_processes > 1 else totals
        loss, stop, grad_norm = torch.stack([*totals, grad_norm]).tolist()  # the step's only wait for the device

        # step. What is not finite never reaches the weights; fp16's scaler skips by itself
        rate = learning_rate_at(run.step, total_steps, args)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if guard.check(run.step + 1, loss, grad_norm) or accelerator.scaler:
            optimizer.step()
        optimizer.zero_grad()  # also where the step was skipped
        run.step += 1

        # log
        run.losses.append(loss)  # a mean over the step's windows
        windows += len(batch_indices)
        bar.update()
        if run.step % args.logging_steps == 0 or run.step == total_steps:
            line = {
                "step": run.step,
                "epoch": run.step / steps_per_epoch,
                "loss": sum(run.losses) / len(run.losses),  # the mean since the last line
                "learning_rate": rate,
                "grad_norm": grad_norm,
                "questions_per_second": windows * questions_per_window / (time.monotonic() - since),
                "memory_mb": used_memory(accelerator.device) / 2**20,  # of the GPU, or of this process
            }
            log.write(line)
            run.losses = []
            windows, since = 0, time.monotonic()
            bar.set_postfix_str(
                f"loss {line['loss']:.3f}, {line['questions_per_second']:.1f} questions/s, "
                f"{line['memory_mb']:,.0f} MB, lr {rate:.1e}",
                refresh=False,  # the next step shows it
            )

        # checkpoint. At the end of an epoch too, before the scoring, where a crash would lose the most
        if stop or run.step % args.save_steps == 0 or run.step % steps_per_epoch == 0 or run.step == total_steps:
            run.save()
        if stop:  # Ctrl-C or SIGTERM
            raise KeyboardInterrupt(run.how_to_resume(f"stopped after step {run.step}, saved"))


def how_to_evaluate(args: argparse.Namespace) -> str:
    """The command that scores this run's model on the questions that it was scored on."""
    if (args.output_dir, args.eval_file) == (SAMPLE["output_dir"], SAMPLE["eval_file"]):
        return "python evaluate.py --sample"
    flags = {
        "model_dir": (args.output_dir / "final_model", OUTPUT_DIR / "final_model"),
        "output_dir": (args.output_dir, OUTPUT_DIR), "eval_file": (args.eval_file, SQUAD_DIR),
    }  # fmt: skip
    given = [f"--{name} {as_argument(path)}" for name, (path, default) in flags.items() if path != default]
    return " ".join(["python evaluate.py", *given, *console.file_flags(args)])


def main(args: argparse.Namespace) -> None:
    # of several processes each looks after the others. Locked: no other training writes to this folder meanwhile
    watch = Watch(console.fail, lambda: f"Then {checkpoints.go_on(args.output_dir)}.")
    with watch, checkpoints.lock_output_dir(args.output_dir), memory.explain_out_of_memory():
        # again: another training may have written there until this one had the lock
        checkpoints.check_output_dir(args.output_dir, args.resume, args.overwrite_output_dir, inputs(args))
        run = prepare(args)
        if args.resume:
            run.resume(args.resume)  # step, losses, optimizer; the weights came with the model
        is_main, output_dir = run.accelerator.is_main_process, args.output_dir  # of several processes one writes
        if is_main:
            run.require_disk_space()
            if args.overwrite_output_dir:
                checkpoints.delete_earlier_run(output_dir)  # only now that nothing else can be refused
        log = TrainingLog(output_dir, run.step, writes=is_main)  # lines after this step are done again
        console.say(run.describe())
        log.append(run.all_settings())
        if is_main and (warning := run.too_few_steps()):
            console.warn(warning)

        # train. What a signal has to say goes straight to the terminal: the bar may be in the middle of a print
        stopping = b"\nstopping after this step, Ctrl-C again stops at once ...\n"
        stop_between_steps(run, announce=lambda: os.write(2, stopping))
        began, first_step = time.monotonic(), run.step
        with console.progress(
            desc="training", total=run.total_steps, initial=run.step, unit=" steps", smoothing=0.05,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        ) as bar:  # fmt: skip
            train(run, log, bar)
        watch.stop()  # the first one has confidences to fit yet, the others have done their part
        minutes = (time.monotonic() - began) / 60
        peak = used_memory(run.accelerator.device, peak=True) / 2**20
        console.say(f"{run.step - first_step:,} steps in {minutes:.1f} min, peak memory {peak:,.0f} MB")

        # print; the model of the best epoch was saved when it was scored, and is asked once more for its confidences
        if is_main:
            calibrated = run.calibrate(log)
            curve = output_dir / "training_curve.png"
            with explain_write_failure(curve, checkpoints.RESUME):
                draw_training_curve(log.lines, curve)
            best = log.best
            print(f"best epoch {best['epoch']:.2f}: EM {best['exact_match']:.2f}, F1 {best['f1']:.2f}")
            final_model = require(output_dir / "final_model", "the model of the best epoch", "Was it deleted?")
            megabytes = sum(path.stat().st_size for path in final_model.iterdir()) / 2**20
            print(f"saved {shown(final_model)} ({megabytes:.0f} MB)")
            console.say(calibrated)
            console.note(f"Next: {how_to_evaluate(args)}")
        run.accelerator.end_training()


if __name__ == "__main__":
    console.run(lambda: main(settings))
