"""The state of a training: saved, resumed, scored, described. The loop that moves it on is in train.py."""

import argparse
import json
import logging
import math
import pickle
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from extractive_qa.errors import QAError, brief
from extractive_qa.files.atomic import replace_folder
from extractive_qa.files.manifest import NAME as MANIFEST
from extractive_qa.metrics import COUNTS_CHARACTERS, choose_f1_unit, compute_metrics
from extractive_qa.model.backends import TorchBackend
from extractive_qa.model.devices import describe, out_of_memory
from extractive_qa.model.families import input_names
from extractive_qa.model.loading import quiet_transformers, require_finite
from extractive_qa.preprocessing.windows import Features, load_tokenizer
from extractive_qa.processes import require_alike
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader
from extractive_qa.settings import DEFAULT_SETTINGS, SETTINGS_FILE, check_settings, read_settings, save_settings
from extractive_qa.text import shown
from extractive_qa.training import checkpoints, situations
from extractive_qa.training.distillation import Teachers
from extractive_qa.training.log import TrainingLog
from extractive_qa.training.model_card import model_card
from extractive_qa.training.negatives import Negatives
from extractive_qa.training.settings import FREE_ON_RESUME, PATHS, READER_SETTINGS, as_settings, other_batch

logger = logging.getLogger(__name__)

FEW_STEPS = 30  # optimizer steps: fewer hardly move a model
OTHER_CONTENTS = {
    "train_file": "the questions in --train_file {train_file} are others than before",
    "eval_file": "the questions in --eval_file {eval_file} are others than before",
    "model_dir": "the files of --model_dir {model_dir} are others than before",
    "windows": "the windows that the questions were cut into are others than before (another tokenizer or version)",
}
CALIBRATION = ("calibrator", "temperature", "references")


@dataclass
class Training:
    """A training between two optimizer steps: what a checkpoint holds, and what it is made of."""

    args: argparse.Namespace
    features: Features
    questions: int
    eval_examples: list[dict]
    accelerator: Accelerator
    precision: str
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    micro_batch_size: int
    padding: tuple[int, int]  # as families.padding says
    teachers: Teachers | None = None
    negatives: Negatives | None = None
    contents: dict[str, str] = field(default_factory=dict)  # what it is made of, as checksums
    progress: Callable = NoProgress  # makes bars, called like tqdm
    step: int = 0  # optimizer steps done
    losses: list[float] = field(default_factory=list)  # since the last line of the log
    stop_signals: list[float] = field(default_factory=list)  # when they came

    def __post_init__(self):
        # beside the model, which scores as it is and is saved under its plain names; one compilation for all lengths
        self.forward = torch.compile(self.model, dynamic=True) if self.args.compile else self.model
        if self.negatives:
            self.features = self.negatives.of_epoch(0)  # every epoch has as many windows
        self.inputs = input_names(self.accelerator.unwrap_model(self.model))
        # looked at now, as a damaged file shall not end a training at its first scores
        self.earlier = earlier_calibration(self.args.model_dir)
        step = {"the checkpoint": self.args.resume and self.args.resume.name, "windows in a step": self.effective_batch}
        require_alike(step | {f"contents of {name}": digest for name, digest in self.contents.items()}, gather_object)

    @property
    def effective_batch(self) -> int:
        """Windows per optimizer step."""
        args = self.args
        per_device = args.per_device_train_batch_size * args.gradient_accumulation_steps
        return per_device * self.accelerator.num_processes

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.features) / self.effective_batch)

    @property
    def total_steps(self) -> int:
        """A pass that ends in the middle of a step ends with that step, as in transformers' Trainer."""
        args = self.args
        return args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * self.steps_per_epoch)

    def require_disk_space(self) -> None:
        """Raises QAError where the disk has no room for all that this training will keep at once: the checkpoints and
        one more while it is written, the final model and its successor while that is written."""
        weights = 4 * sum(parameter.numel() for parameter in self.model.parameters())  # bytes, in fp32
        saves = self.total_steps // self.args.save_steps + self.total_steps // self.steps_per_epoch + 1
        kept = min(self.args.save_total_limit + 1, saves)
        # in a checkpoint: the weights, and AdamW's two moments
        checkpoints.require_disk_space(self.args.output_dir, weights * (3 * kept + 2))

    def save(self) -> None:
        """Saves checkpoint-{step}: a model folder that evaluate.py reads, with optimizer.pt and state.json."""
        state = {
            "step": self.step,
            "losses": self.losses,
            "micro_batch_size": self.micro_batch_size,
            "effective_batch": self.effective_batch,
            "windows": len(self.features),
            "teachers": self.teachers.identities if self.teachers else [],
            "precision": self.precision,
            "contents": self.contents,
            # absolute, so that they can be followed when they move together with the run
            "settings": as_settings(self.args, lambda path: str(path.absolute())),
        }
        scaler = self.accelerator.scaler

        def write(folder: Path) -> None:
            self.write_model(folder, scores=None)
            tensors = {"optimizer": self.optimizer.state_dict(), "scaler": scaler.state_dict() if scaler else {}}
            torch.save(tensors, folder / "optimizer.pt")
            checkpoints.write_state(folder, state)

        if self.accelerator.is_main_process:
            checkpoints.save_checkpoint(self.args.output_dir, self.step, write, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def resume(self, checkpoint: Path) -> None:
        """Takes up what `save` wrote (the model's weights are loaded already). Raises QAError where flags differ, or
        files hold something else than before: where they are does not matter."""
        state = checkpoints.read_state(checkpoint)
        now = as_settings(self.args)
        contents = state.get("contents")  # None: an older train.py saved it, and only the paths are known
        free = FREE_ON_RESUME | (set() if contents is None else PATHS)
        differing = [
            f"--{name} {now[name]} (was {value})"
            for name, value in state["settings"].items()
            if name not in free and now.get(name) != value
        ]
        for name, was in (contents or {}).items():
            # other questions make other windows: one line is enough
            if was != self.contents.get(name) and not (name == "windows" and differing):
                differing.append(OTHER_CONTENTS[name].format(**now))
        if len(self.features) != state["windows"]:
            differing.append(f"windows {len(self.features)} (was {state['windows']})")
        if self.effective_batch != state["effective_batch"]:
            differing.append(other_batch(self.args, self.accelerator.num_processes, state["effective_batch"]))
        if state.get("teachers", []) != (self.teachers.identities if self.teachers else []):
            differing.append("the models in --teacher_dir are others than before")
        if differing:
            raise QAError(
                f"--resume goes on with the training as it was, but these differ: {', '.join(differing)}. "
                "Leave these flags out, bring the earlier files back, or train into another --output_dir."
            )
        if (before := state.get("precision", self.precision)) != self.precision and self.accelerator.is_main_process:
            logger.warning(
                f"this training goes on in {self.precision}, and was in {before} (--mixed_precision, or the device)"
            )
        self.step, self.losses = state["step"], state["losses"]
        if self.args.per_device_train_batch_size == state["settings"]["per_device_train_batch_size"]:
            self.micro_batch_size = state["micro_batch_size"]  # smaller where memory had run out
        self.load_optimizer(checkpoint / "optimizer.pt")

    def load_optimizer(self, path: Path) -> None:
        """Takes up the optimizer's and the scaler's state: tensors and plain values, no other object is unpickled.
        Raises QAError where it is something else, or not finite."""
        try:
            # to the CPU first: the optimizer takes each tensor to where its weights are
            saved = torch.load(path, map_location="cpu", weights_only=True)
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.accelerator.scaler and saved["scaler"]:
                self.accelerator.scaler.load_state_dict(saved["scaler"])
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise  # nothing is wrong with the checkpoint
            raise QAError(  # torch adds pages of advice
                f"{path} can't be read ({brief(error)}). Expected the state of this optimizer. "
                f"{checkpoints.delete_to_go_back(path.parent)}"
            ) from None
        names = {parameter: name for name, parameter in self.accelerator.unwrap_model(self.model).named_parameters()}
        moments = (
            (f"{kind} of {names[parameter]}", tensor)
            for parameter, state in self.optimizer.state.items()
            for kind, tensor in state.items()
        )
        require_finite(moments, path, checkpoints.delete_to_go_back(path.parent))

    def write_model(self, folder: Path, scores: dict | None) -> None:
        args = self.args
        settings = {name: vars(args)[name] for name in READER_SETTINGS}
        # files by name only: the folder may travel to where these paths mean nothing
        training = as_settings(args, lambda path: path.name)
        del training["project_dir"]
        training |= {"mixed_precision": self.precision, "processes": self.accelerator.num_processes}
        settings |= self.earlier | {"scores": scores, "training": training}
        save_reader(folder, self.accelerator.unwrap_model(self.model), args.model_dir, settings)
        if scores:
            card = model_card(training, scores, args.model_dir, args.train_file, args.eval_file)
            (folder / "README.md").write_text(card, encoding="utf-8")

    def evaluate(self, log: TrainingLog) -> list[str]:
        """Scores the model as it is; the best by F1 so far becomes final_model. Returns what there is to say of it, for
        people; [] in all processes but the first."""
        line, found = self.score(log)
        (line,) = broadcast_object_list([line])  # every process knows the best epoch
        log.write(line)
        return found

    def score(self, log: TrainingLog) -> tuple[dict | None, list[str]]:
        """The main process's part of `evaluate`: the line for the log. None in the other processes."""
        args, examples = self.args, self.eval_examples
        if not self.accelerator.is_main_process:
            return None, []
        model, device = self.accelerator.unwrap_model(self.model), self.accelerator.device
        reader = Reader(
            args.model_dir,
            batch_size=args.per_device_eval_batch_size,
            backend=TorchBackend(model, device, self.precision),
            settings={name: vars(args)[name] for name in READER_SETTINGS} | self.earlier,
        )
        reader.watches_unknown = False  # train.py has said it of the questions that are learned from
        with self.progress(desc="scoring", total=len(examples), unit=" questions", leave=False) as bar:
            predictions, _ = reader.predict(examples, 1, lambda *_: self.stop_if_told(), bar)
        scores = compute_metrics(predictions, examples)
        best = max((line["f1"] for line in log.scores), default=0.0)
        line = {"step": self.step, "epoch": self.step / self.steps_per_epoch, **scores}
        found = [f"epoch {line['epoch']:.2f}: EM {scores['exact_match']:.2f}, F1 {scores['f1']:.2f}"]
        final_model = args.output_dir / "final_model"
        if scores["f1"] >= best or not final_model.exists():
            replace_folder(final_model, lambda folder: self.write_model(folder, scores), checkpoints.RESUME)
        self.model.train()
        return line, found

    def stop_if_told(self) -> None:
        """Raises KeyboardInterrupt once a signal came."""
        if self.stop_signals:
            raise KeyboardInterrupt(self.how_to_resume(f"stopped after step {self.step}, saved"))

    def calibrate(self, log: TrainingLog) -> str:
        """Fits the confidences of final_model to the scored questions, in the situations that people ask in. Returns
        what there is to say of them, for people."""
        final_model = self.args.output_dir / "final_model"
        reader = Reader(
            final_model, str(self.accelerator.device), self.precision, self.args.per_device_eval_batch_size, "torch"
        )
        reader.watches_unknown = False
        # as it was before they were fitted: a run that ends here a second time fits the same
        reader.settings |= {name: DEFAULT_SETTINGS[name] for name in CALIBRATION} | self.earlier

        calibrator, found = situations.calibrate(
            reader, self.eval_examples, progress=self.progress, before_each=self.stop_if_told
        )
        try:
            save_settings(final_model, situations.fitted_settings(calibrator), manifests=(MANIFEST, checkpoints.MARKER))
        except QAError as error:
            raise QAError(f"{error} Or free some space, then {checkpoints.RESUME}.") from None
        log.append({"step": self.step, "calibration": found})
        return situations.describe(found)

    def how_to_resume(self, what_happened: str) -> str:
        if not checkpoints.list_checkpoints(self.args.output_dir):
            return f"{what_happened}. Nothing was saved yet: start again"
        return f"{what_happened}. Resume with: python train.py --resume --output_dir {shown(self.args.output_dir)}"

    def describe(self) -> str:
        """What is about to happen, in a few plain lines; the log has all settings."""
        args, processes = self.args, self.accelerator.num_processes
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        device = describe(self.accelerator.device) + (f", {processes} processes" if processes > 1 else "")
        lines = [
            f"model: {shown(args.model_dir)}, {parameters / 1e6:.1f} M parameters",
            f"data: {self.questions:,} questions in {len(self.features):,} windows, {len(self.eval_examples):,} "
            "questions to score",
            f"steps: {self.total_steps:,} of {self.effective_batch} windows, {self.micro_batch_size} at once",
            f"device: {device}, mixed precision: {self.precision}",
            f"output: {shown(args.output_dir)}, with all settings in training_log.jsonl",
        ]
        if choose_f1_unit(self.eval_examples) == "character":
            lines.append(COUNTS_CHARACTERS)
        if args.resume:
            lines.append(f"resumed from {shown(args.resume)} after step {self.step}")
        return "\n".join(lines)

    def all_settings(self) -> dict:
        """What describe leaves out: a line for the log."""
        return {"step": self.step, "settings": as_settings(self.args, shown), "precision": self.precision}

    def too_few_steps(self) -> str:
        """What to say where the training is too short to learn much, "" where it is not."""
        if self.total_steps >= FEW_STEPS:
            return ""
        longer = "--max_steps" if self.args.max_steps > 0 else "--num_train_epochs"
        return (
            f"{self.total_steps} optimizer step(s) are too few to learn much, {FEW_STEPS} or more are needed: a larger "
            f"{longer}, a smaller --gradient_accumulation_steps, a larger --learning_rate, or more questions"
        )


def stop_between_steps(run: Training, announce: Callable[[], object]) -> None:
    """From now on the first Ctrl-C or SIGTERM is noted in run.stop_signals, for the loop to see, and announced at once.
    Ctrl-C more than a second after that raises KeyboardInterrupt: torchrun and impatient fingers send several at a
    time."""

    def stop(number: int, _) -> None:
        now = time.monotonic()
        if run.stop_signals and number == signal.SIGINT and now - run.stop_signals[0] > 1:
            raise KeyboardInterrupt(run.how_to_resume("stopped at once, steps since the last checkpoint are lost"))
        if not run.stop_signals:
            announce()
        run.stop_signals.append(now)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def earlier_calibration(model_dir: Path) -> dict:
    """What reader.json of the model that a training starts from says of confidences. Raises QAError where it is
    damaged."""
    saved = read_settings(model_dir)
    found = {name: saved[name] for name in CALIBRATION if name in saved}
    if problems := check_settings(DEFAULT_SETTINGS | found):
        raise QAError(f"{model_dir / SETTINGS_FILE}: {'; '.join(problems)}. Fix the file, or delete it.")
    return found


def save_reader(folder: Path, model, tokenizer_dir: Path, settings: dict) -> None:
    """Writes a plain Hugging Face folder (safetensors, config, tokenizer) with `settings` as reader.json."""
    with quiet_transformers():  # it shows a bar
        model.save_pretrained(folder)
    load_tokenizer(tokenizer_dir).save(str(folder / "tokenizer.json"))  # without truncation and padding
    for name in ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (Path(tokenizer_dir) / name).exists():
            shutil.copyfile(Path(tokenizer_dir) / name, folder / name)
    for path in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", path)  # the library lets only the owner read it
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
