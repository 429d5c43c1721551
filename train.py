"""Fine-tunes MobileBERT (or any BERT-like encoder) to answer questions, offline.

    python train.py                                   # models/mobilebert-uncased on data/squad, 3 epochs
    python train.py --sample                          # the bundled model on the bundled questions, minutes on a CPU
    python train.py --preset paper --bf16             # Google's published recipe
    python train.py --resume                          # go on where the last run stopped
    accelerate launch --num_processes 2 train.py      # two GPUs

Reads --model_dir, --train_file and --eval_file. Writes to --output_dir: final_model (the best epoch by F1, a plain
Hugging Face folder with reader.json), checkpoint-N, training_log.jsonl, training_curve.png and runs/ for TensorBoard.
"""

from utils.offline import MODEL_DIR, OUTPUT_DIR, SAMPLE_DATA_DIR, SAMPLE_MODEL_DIR, SQUAD_DIR, go_offline

go_offline()

import argparse
import json
import math
import shutil
import signal
import textwrap
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

from utils import console
from utils.console import UserError

PRESETS = {
    # google-research/mobilebert, README: effective batch 32, 5 epochs
    "paper": {"num_train_epochs": 5, "learning_rate": 4e-5, "gradient_accumulation_steps": 8},
}
SAMPLE = {
    "model_dir": SAMPLE_MODEL_DIR,
    "train_file": SAMPLE_DATA_DIR / "train.json",
    "eval_file": SAMPLE_DATA_DIR / "dev.json",
    "output_dir": OUTPUT_DIR / "sample",
}
# what may differ when a run is resumed: it does not change what is learned
FREE_ON_RESUME = {
    "resume", "overwrite_output_dir", "output_dir", "device", "logging_steps", "save_steps", "save_total_limit",
    "per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size",
    "gradient_checkpointing", "skip_bad_examples", "sample", "preset",
}  # fmt: skip
MAX_BAD_STEPS = 20  # in a row; fp16's scaler needs several to find its scale
MAX_ZERO_LOSSES = 3


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n", maxsplit=1)[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument_group("files").add_argument
    add("--model_dir", type=Path, default=MODEL_DIR, help="encoder to start from")
    add("--train_file", type=Path, default=SQUAD_DIR, help="questions: JSON, JSON Lines, CSV, Parquet, saved dataset")
    add("--eval_file", type=Path, default=SQUAD_DIR, help="questions to score after each epoch")
    add("--output_dir", type=Path, default=OUTPUT_DIR, help="where everything is written")
    add("--sample", action="store_true", help="the bundled model and questions, to output/sample")
    add("--resume", action="store_true", help="go on from the newest checkpoint in --output_dir, with its settings")
    add("--overwrite_output_dir", action="store_true", help="delete an earlier run in --output_dir first")
    add("--skip_bad_examples", action="store_true", help="leave invalid records out instead of refusing the file")
    add("--max_train_samples", type=int, default=None, help="use only so many questions")
    add("--max_eval_samples", type=int, default=None, help="score only so many questions")

    add = parser.add_argument_group("what is learned").add_argument
    add("--preset", choices=sorted(PRESETS), default=None, help="paper: Google's recipe, 5 epochs, 4e-5, batch 32")
    add("--num_train_epochs", type=int, default=3, help="passes over the questions")
    add("--max_steps", type=int, default=-1, help="stop after so many optimizer steps; -1: by epochs")
    add("--per_device_train_batch_size", type=int, default=4, help="windows at once (micro-batch)")
    add("--gradient_accumulation_steps", type=int, default=4, help="micro-batches per optimizer step")
    add("--learning_rate", type=float, default=3e-5, help="peak learning rate")
    add("--lr_scheduler_type", choices=["linear", "cosine"], default="linear", help="decay after the warm-up, to 0")
    add("--warmup_ratio", type=float, default=0.1, help="share of all steps in which the learning rate rises")
    add("--weight_decay", type=float, default=0.01, help="not applied to norms and biases")
    add("--adam_epsilon", type=float, default=1e-6, help="AdamW's epsilon")
    add("--max_grad_norm", type=float, default=1.0, help="gradients are clipped to this norm; 0: not")
    add("--max_length", type=int, default=384, help="tokens in a window: question, context and special tokens")
    add("--doc_stride", type=int, default=128, help="overlap of neighbouring windows in tokens (not their distance)")
    add("--max_answer_length", type=int, default=30, help="tokens in an answer, at most")
    add("--seed", type=int, default=42, help="of the order of questions, dropout, and the new output layer")

    add = parser.add_argument_group("how it runs").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--mixed_precision", choices=["auto", "no", "bf16", "fp16"], default="auto", help="auto: bf16 where it is fast")
    add("--bf16", dest="mixed_precision", action="store_const", const="bf16", help="short for --mixed_precision bf16")
    add("--fp16", dest="mixed_precision", action="store_const", const="fp16", help="short for --mixed_precision fp16")
    add("--gradient_checkpointing", action="store_true", help="less memory, about a third more time")
    add("--per_device_eval_batch_size", type=int, default=32, help="windows at once when scoring")
    add("--logging_steps", type=int, default=20, help="steps between two lines of the log")
    add("--save_steps", type=int, default=500, help="steps between two checkpoints; one more is saved at each epoch")
    add("--save_total_limit", type=int, default=2, help="checkpoints that are kept")

    # a preset, the sample and a resumed run change the defaults; flags that were given still win
    args = parser.parse_args(argv)
    if args.preset:
        parser.set_defaults(**PRESETS[args.preset])
    if args.sample:
        parser.set_defaults(**SAMPLE)
    args = parser.parse_args(argv)
    if args.resume:
        parser.set_defaults(**saved_settings(args.output_dir))
        args = parser.parse_args(argv)
    check_args(args)
    return args


def check_args(args: argparse.Namespace) -> None:
    """Raises UserError with everything that is wrong with the settings."""
    from utils.windows import check_window_settings

    problems = check_window_settings(args.max_length, args.doc_stride)
    at_least_one = (
        "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "max_answer_length",
        "per_device_eval_batch_size", "logging_steps", "save_steps", "save_total_limit", "max_train_samples",
        "max_eval_samples",
    )  # fmt: skip
    for name in at_least_one:
        if getattr(args, name) is not None and getattr(args, name) < 1:
            problems.append(f"--{name} is {getattr(args, name)}, expected at least 1")
    if args.max_steps == 0 or args.max_steps < -1:
        problems.append(f"--max_steps is {args.max_steps}, expected at least 1, or -1 for no limit")
    for name in ("learning_rate", "adam_epsilon"):
        if not 0 < getattr(args, name) < math.inf:
            problems.append(f"--{name} is {getattr(args, name)}, expected more than 0")
    for name in ("weight_decay", "max_grad_norm"):
        if not 0 <= getattr(args, name) < math.inf:
            problems.append(f"--{name} is {getattr(args, name)}, expected 0 or more")
    if not 0 <= args.warmup_ratio <= 1:
        problems.append(f"--warmup_ratio is {args.warmup_ratio}, expected 0 to 1")
    if not 0 <= args.seed < 2**63:
        problems.append(f"--seed is {args.seed}, expected 0 or more")
    if args.resume and args.overwrite_output_dir:
        problems.append("--resume and --overwrite_output_dir exclude each other")
    if problems:
        raise UserError("; ".join(problems) + ". See: python train.py --help")


def saved_settings(output_dir: Path) -> dict:
    """The settings of the run that is resumed, as its newest checkpoint has them."""
    from utils.checkpoints import latest_checkpoint

    settings = read_state(latest_checkpoint(output_dir))["settings"]
    return {name: value for name, value in settings.items() if name not in ("resume", "output_dir")}


def read_state(checkpoint: Path) -> dict:
    return json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))


def as_settings(args: argparse.Namespace) -> dict:
    """The resolved flags as plain values, to be saved and shown."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in sorted(vars(args).items())}


def prepare_output_dir(args: argparse.Namespace) -> None:
    """Refuses to write over an earlier run, unless that was asked for."""
    from utils.checkpoints import list_checkpoints, recover

    final_model = args.output_dir / "final_model"
    recover(final_model)
    earlier = [path for path in (final_model, *list_checkpoints(args.output_dir)) if path.exists()]
    if earlier and not args.resume and not args.overwrite_output_dir:
        raise UserError(
            f"{args.output_dir} holds an earlier run ({', '.join(path.name for path in earlier)}). "
            "Go on with it: --resume. Delete it: --overwrite_output_dir. Or choose another --output_dir."
        )
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        if args.overwrite_output_dir:
            for path in (*earlier, args.output_dir / "runs"):
                shutil.rmtree(path, ignore_errors=True)
            (args.output_dir / "training_log.jsonl").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{args.output_dir} can't be written: {error.strerror}. Choose another --output_dir.") from None


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
    import torch
    from torch.nn.functional import cross_entropy

    padding = batch["attention_mask"] == 0
    start = cross_entropy(
        start_logits.float().masked_fill(padding, -torch.inf), batch["start_positions"], reduction="none"
    )
    end = cross_entropy(end_logits.float().masked_fill(padding, -torch.inf), batch["end_positions"], reduction="none")
    return (start + end) / 2


def accumulate_gradients(model, accelerator, features, batch_indices, micro_batch_size, seed, max_length):
    """Adds the gradients of one effective batch's mean loss, cut into micro-batches; returns that loss, a tensor.

    Dropout is drawn from `seed` (one for each step), so that a resumed run draws what it would have drawn.
    """
    import torch

    from utils.batches import micro_batches, pad_batch

    rank, processes = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(seed * processes + rank)
    total_loss = torch.zeros((), device=accelerator.device)
    parts = micro_batches(batch_indices, micro_batch_size, rank, processes)
    for number, (indices, weights) in enumerate(parts, 1):
        batch = pad_batch(
            [features[i] for i in indices], max_length, accelerator.unwrap_model(model).config.pad_token_id
        )
        batch = {name: torch.from_numpy(array).to(accelerator.device) for name, array in batch.items()}
        weights = torch.from_numpy(weights).to(accelerator.device)
        # processes average their gradients once, at the last micro-batch
        with nullcontext() if number == len(parts) else accelerator.no_sync(model):
            output = model(**{name: tensor for name, tensor in batch.items() if not name.endswith("_positions")})
            losses = window_losses(output.start_logits, output.end_logits, batch)
            # every window counts the same, however the batch was cut
            loss = (losses * weights).sum() / len(batch_indices)
            accelerator.backward(loss * processes)
        total_loss += loss.detach()
    return accelerator.reduce(total_loss, "sum") if processes > 1 else total_loss


class Guard:
    """Stops a run that fails: steps whose loss or gradient is not finite, or whose loss reads exactly 0, in a row."""

    def __init__(self, precision: str):
        self.precision, self.bad_steps, self.zero_losses = precision, 0, 0

    def check(self, step: int, loss: float, grad_norm: float) -> bool:
        """Whether this step may reach the weights. Raises UserError where too many may not."""
        finite = math.isfinite(loss) and math.isfinite(grad_norm)
        self.bad_steps = 0 if finite else self.bad_steps + 1
        self.zero_losses = self.zero_losses + 1 if loss == 0.0 else 0
        if not finite and self.precision != "fp16":  # fp16's scaler skips steps as a matter of course
            console.warn(f"step {step}: loss {loss}, gradient norm {grad_norm}: not applied to the weights")
        if self.bad_steps >= MAX_BAD_STEPS or self.zero_losses >= MAX_ZERO_LOSSES:
            if self.bad_steps >= MAX_BAD_STEPS:
                found = f"{self.bad_steps} steps in a row without a finite loss and gradient"
            else:
                found = f"{self.zero_losses} steps in a row with a loss of exactly 0"
            why = (
                "fp16 holds numbers up to 65,504, and MobileBERT's activations pass that. Use --bf16 (Ampere and "
                "newer) or --mixed_precision no"
                if self.precision == "fp16"
                else "The starting weights may be damaged, or --learning_rate too high. Try --mixed_precision no and a "
                "lower --learning_rate, or download the model again: python download_data.py --only model --force"
            )
            raise UserError(f"training stopped at step {step}: {found}. The weights were not touched by them. {why}.")
        return finite


class RunLog:
    """training_log.jsonl, one JSON object a line, and the same numbers for TensorBoard. Only the main process writes."""

    def __init__(self, output_dir: Path, resume_step: int, enabled: bool):
        self.path, self.enabled, self.lines = output_dir / "training_log.jsonl", enabled, []
        if resume_step and self.path.exists():  # what came after the checkpoint is done again
            lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
            self.lines = [line for line in lines if line["step"] <= resume_step]
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
            self.board = SummaryWriter(str(output_dir / "runs"), purge_step=resume_step + 1 if resume_step else None)

    def write(self, line: dict) -> None:
        self.lines.append(line)
        if self.enabled:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            for name, value in line.items():
                if name not in ("step", "epoch"):
                    self.board.add_scalar(name, value, line["step"])
            self.board.flush()

    def scores(self) -> list[dict]:
        """The lines of the evaluations so far."""
        return [line for line in self.lines if "f1" in line]


def save_model_folder(folder: Path, model, args: argparse.Namespace, scores: dict | None) -> None:
    """A plain Hugging Face folder, with the window settings and how it was trained in reader.json."""
    from utils.reader import SETTINGS_FILE
    from utils.windows import load_tokenizer

    model.save_pretrained(folder)
    load_tokenizer(args.model_dir).save(str(folder / "tokenizer.json"))  # without truncation and padding
    for name in ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (args.model_dir / name).exists():
            shutil.copyfile(args.model_dir / name, folder / name)
    settings = {
        "max_length": args.max_length,
        "doc_stride": args.doc_stride,
        "max_answer_length": args.max_answer_length,
        "temperature": 1.0,
        "scores": scores,
        "training": as_settings(args),
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=1), encoding="utf-8")


def check_resumed(state: dict, args: argparse.Namespace, effective_batch: int) -> None:
    """Raises UserError where the flags would make another training of the one that is resumed."""
    now = as_settings(args)
    differing = [
        f"--{name} {now[name]} (was {value})"
        for name, value in state["settings"].items()
        if name not in FREE_ON_RESUME and now.get(name) != value
    ]
    if effective_batch != state["effective_batch"]:
        differing.append(f"{effective_batch} windows per optimizer step (was {state['effective_batch']})")
    if differing:
        raise UserError(
            f"--resume goes on with the training as it was, but these differ: {', '.join(differing)}. "
            "Leave them out, or train anew into another --output_dir."
        )


def smaller_micro_batch(micro_batch_size: int, accelerator) -> int:
    """Half the micro-batch, after running out of GPU memory. Raises UserError where it can't be halved."""
    import torch

    if micro_batch_size == 1 or accelerator.num_processes > 1:
        raise UserError(
            f"out of GPU memory with {micro_batch_size} window(s) at once. Try --gradient_checkpointing, a smaller "
            "--per_device_train_batch_size, or a shorter --max_length; close other programs that use the GPU."
        )
    torch.cuda.empty_cache()
    half = micro_batch_size // 2
    console.warn(
        f"out of GPU memory with {micro_batch_size} windows at once, going on with {half}, accumulated to the same batch"
    )
    return half


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    prepare_output_dir(args)

    # data, and all that can be wrong with it, before anything slow
    from utils.manifest import check_manifest
    from utils.offline import require, require_model
    from utils.squad import read_examples
    from utils.windows import load_tokenizer, prepare_train_features

    console.note("reading questions ...")
    download = "Run: python download_data.py (or try: python train.py --sample)"
    require_model(args.model_dir, download)
    for folder in {args.model_dir, args.train_file, args.eval_file}:
        if require(folder, "a file or folder with questions", download).is_dir():
            check_manifest(folder, full=False)
    examples = read_examples(args.train_file, "train", args.skip_bad_examples)[: args.max_train_samples]
    eval_examples = read_examples(args.eval_file, "validation", args.skip_bad_examples)[: args.max_eval_samples]
    features = prepare_train_features(examples, load_tokenizer(args.model_dir), args.max_length, args.doc_stride)

    # device and model
    console.note("loading the model ...")
    import torch
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs, set_seed
    from tqdm.auto import tqdm

    from utils.batches import epoch_batches
    from utils.checkpoints import latest_checkpoint, save_checkpoint, write_folder
    from utils.devices import choose_attention, choose_device, choose_precision, describe, used_memory
    from utils.metrics import compute_metrics
    from utils.reader import Reader, load_encoder
    from utils.report import draw_training_curve

    device = choose_device(args.device)
    precision = choose_precision(args.mixed_precision, device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        if device.index is not None:
            torch.cuda.set_device(device)
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=device.type == "cpu",
        # the other processes wait while the first one scores
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=6))],
    )
    is_main = accelerator.is_main_process
    set_seed(args.seed)
    checkpoint = latest_checkpoint(args.output_dir) if args.resume else None
    model = load_encoder(checkpoint or args.model_dir, choose_attention(device, precision))
    if args.max_length > model.config.max_position_embeddings:
        raise UserError(
            f"--max_length {args.max_length}, but {args.model_dir} has {model.config.max_position_embeddings} positions"
        )
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    parameters = sum(parameter.numel() for parameter in model.parameters())

    # norms and biases are vectors, all else is decayed
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": args.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, eps=args.adam_epsilon, fused=device.type != "mps")
    model, optimizer = accelerator.prepare(model, optimizer)

    # how far: optimizer steps of `effective_batch` windows
    micro_batch_size = args.per_device_train_batch_size
    effective_batch = micro_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    steps_per_epoch = math.ceil(len(features) / effective_batch)
    total_steps = args.max_steps if args.max_steps > 0 else args.num_train_epochs * steps_per_epoch
    step = 0
    if checkpoint:
        state = read_state(checkpoint)
        check_resumed(state, args, effective_batch)
        step, micro_batch_size = state["step"], min(micro_batch_size, state["micro_batch_size"])
        saved = torch.load(checkpoint / "optimizer.pt", map_location=accelerator.device, weights_only=True)
        optimizer.load_state_dict(saved["optimizer"])
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(saved["scaler"])
    log = RunLog(args.output_dir, step, enabled=is_main)

    if is_main:
        settings = " ".join(f"{name}={value}" for name, value in as_settings(args).items())
        print(textwrap.fill(f"settings: {settings}", 120, subsequent_indent="  ", break_on_hyphens=False))
        print(f"device: {describe(accelerator.device)}, mixed precision: {precision}")
        print(f"model: {parameters / 1e6:.1f} M parameters, {4 * parameters / 2**20:.0f} MB in fp32")
        print(
            f"data: {len(examples):,} questions in {len(features):,} windows, {total_steps:,} steps of "
            f"{effective_batch} windows; {len(eval_examples):,} questions to score"
        )
        if checkpoint:
            print(f"resumed from {checkpoint} at step {step}")

    def save() -> None:
        """Saves a checkpoint of this moment, between two steps."""

        def write(folder: Path) -> None:
            save_model_folder(folder, accelerator.unwrap_model(model), args, scores=None)
            scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
            torch.save({"optimizer": optimizer.state_dict(), "scaler": scaler}, folder / "optimizer.pt")
            state = {
                "step": step,
                "effective_batch": effective_batch,
                "micro_batch_size": micro_batch_size,
                "questions": len(examples),
                "settings": as_settings(args),
            }
            (folder / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")

        if is_main:
            save_checkpoint(args.output_dir, step, write, args.save_total_limit)
        accelerator.wait_for_everyone()

    def evaluate_now() -> None:
        """Scores the model as it is; the best by F1 becomes final_model."""
        if is_main:
            unwrapped = accelerator.unwrap_model(model)
            reader = Reader(
                args.model_dir,
                str(accelerator.device),
                precision,
                args.per_device_eval_batch_size,
                model=unwrapped,
                settings={name: vars(args)[name] for name in ("max_length", "doc_stride", "max_answer_length")},
            )
            answers = tqdm(
                reader.answer_all(eval_examples), "scoring", len(eval_examples), leave=False, unit=" questions"
            )
            predictions = {e["id"]: a[0]["text"] for e, a in zip(eval_examples, answers, strict=True)}
            scores = compute_metrics(predictions, eval_examples)
            if scores["f1"] >= max((line["f1"] for line in log.scores()), default=0.0):
                write_folder(
                    args.output_dir / "final_model", lambda folder: save_model_folder(folder, unwrapped, args, scores)
                )
            log.write({"step": step, "epoch": step / steps_per_epoch, **scores})
            draw_training_curve(log.lines, args.output_dir / "training_curve.png")
            tqdm.write(f"epoch {step / steps_per_epoch:.2f}: EM {scores['exact_match']:.2f}, F1 {scores['f1']:.2f}")
            model.train()
        accelerator.wait_for_everyone()

    # Ctrl-C and SIGTERM are heeded between two steps
    stop_signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stop_signals.append(received))

    guard = Guard(precision)
    began, last_log, losses, epoch = time.monotonic(), time.monotonic(), [], -1
    first_step = step
    bar = tqdm(total=total_steps, initial=step, desc="training", unit=" steps", disable=not is_main, smoothing=0.05)
    model.train()
    while step < total_steps or not log.scores() or log.scores()[-1]["step"] < step:
        at_boundary = step > 0 and (step % steps_per_epoch == 0 or step == total_steps)
        if at_boundary and not any(line["step"] == step for line in log.scores()):
            evaluate_now()
            continue
        if step // steps_per_epoch != epoch:
            epoch = step // steps_per_epoch
            batches = epoch_batches(features.lengths, effective_batch, args.seed, epoch)
        rate = learning_rate_at(step, total_steps, args)
        for group in optimizer.param_groups:
            group["lr"] = rate

        # one optimizer step: forward and backward over the micro-batches of one effective batch
        batch_indices = batches[step % steps_per_epoch]
        try:
            loss = accumulate_gradients(
                model, accelerator, features, batch_indices, micro_batch_size, args.seed + step, args.max_length
            )
        except torch.OutOfMemoryError:
            micro_batch_size = smaller_micro_batch(micro_batch_size, accelerator)
            optimizer.zero_grad()
            continue
        grad_norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm or math.inf)
        loss, grad_norm = torch.stack([loss, grad_norm.to(loss.device)]).tolist()  # the step's only synchronisation
        if guard.check(step, loss, grad_norm) or accelerator.scaler is not None:  # the scaler skips by itself
            optimizer.step()
        optimizer.zero_grad()
        step += 1

        losses.append((loss, len(batch_indices)))
        bar.update()
        if step % args.logging_steps == 0 or step == total_steps:
            now = time.monotonic()
            line = {
                "step": step,
                "epoch": step / steps_per_epoch,
                "loss": sum(loss for loss, _ in losses) / len(losses),
                "learning_rate": rate,
                "grad_norm": grad_norm,
                "windows_per_second": sum(size for _, size in losses) / (now - last_log),
                "memory_mb": used_memory(accelerator.device) / 2**20,
            }
            log.write(line)
            losses, last_log = [], now
            bar.set_postfix_str(
                f"loss {line['loss']:.3f}, lr {rate:.1e}, {line['windows_per_second']:.1f} windows/s, "
                f"{line['memory_mb']:,.0f} MB"
            )
        if stop_signals or step % args.save_steps == 0 or step % steps_per_epoch == 0 or step == total_steps:
            save()
        if stop_signals:
            raise KeyboardInterrupt
    bar.close()

    best = max(log.scores(), key=lambda line: line["f1"])
    minutes = (time.monotonic() - began) / 60
    size = sum(path.stat().st_size for path in (args.output_dir / "final_model").iterdir())
    if is_main:
        print(
            f"trained {step - first_step:,} steps in {minutes:.1f} minutes, peak memory "
            f"{used_memory(accelerator.device, peak=True) / 2**20:,.0f} MB"
        )
        print(f"best epoch {best['epoch']:.2f}: EM {best['exact_match']:.2f}, F1 {best['f1']:.2f}")
        print(f"saved {args.output_dir / 'final_model'} ({size / 2**20:.0f} MB)")
    accelerator.end_training()


if __name__ == "__main__":
    console.run(main)
