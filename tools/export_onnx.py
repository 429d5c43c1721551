"""Exports a trained model for ONNX Runtime, into its own folder: onnx/model.onnx (fp32) and onnx/model_quantized.onnx.

    python tools/export_onnx.py                       # output/final_model, checked on the dev questions of data/squad
    python tools/export_onnx.py --sample              # the sample model, checked on the bundled questions
    python tools/export_onnx.py --model_dir DIR --eval_file FILE --max_samples 1000

Each model is checked before it stays: its logits are compared with PyTorch's in fp32 on 100 questions of --eval_file,
the answers of int8 with those of the exported fp32 model on --max_samples. One whose logits differ too much (by 0.1 %
of their spread, int8: 10 %), or that surely loses more than 0.5 points of F1 (95 %, by contexts), is deleted, unless
--force. onnx.json then lists the files with their checksums, and says where and on what they were checked: --backend
auto uses them only beside the weights they came from. An int8 model that is refused is a warning, an fp32 one an error.
transformers.js loads the folder as it is (docs/RESULTS.md).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import OUTPUT_DIR, SAMPLE_DATA_DIR, SAMPLE_FILES, SQUAD_DIR, go_offline, sample_model

go_offline()

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import writing
from extractive_qa.files.reading import require
from extractive_qa.model.folder import ONNX_FILES, require_model
from extractive_qa.settings import may_find_none
from extractive_qa.text import shown
from utils import console

RANGE_QUESTIONS = 64  # whose texts are enough to measure activation ranges on


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = console.make_parser(__doc__, "python tools/export_onnx.py [options]")
    add = parser.add_argument
    add("--model_dir", type=Path, default=OUTPUT_DIR / "final_model", help="trained model; the files are put there")
    add("--eval_file", type=Path, default=SQUAD_DIR, help="questions to check the answers on")
    add("--max_samples", type=int, default=1000, help="check on so many of them")
    add("--calibration_file", type=Path, default=SAMPLE_DATA_DIR / "train.json", help="texts for the activation ranges")
    add("--sample", action="store_true", help="the bundled questions, and output/sample or the bundled model")
    add(
        "--handle_impossible_answer", action="store_true",
        help='SQuAD 2: questions may have no answer, and "" be given; else as the model was trained',
    )  # fmt: skip
    console.add_file_flags(add)
    add("--force", action="store_true", help="keep the models whatever the check says")
    args = parser.parse_args(argv)
    if args.sample:
        parser.set_defaults(model_dir=sample_model(), eval_file=SAMPLE_FILES["dev"])
        args = parser.parse_args(argv)
    if args.max_samples < 1:
        raise QAError(f"--max_samples is {args.max_samples}, expected at least 1")
    return args


def show(check) -> None:
    """A line for what was checked: scores, speed, and how it differs."""
    scores = f"{check.name:25} EM {check.exact_match:.2f}  F1 {check.f1:.2f}"
    speed = f"{check.questions_per_second:.1f} questions/s, {check.size / 1e6:.0f} MB"
    more = f"{speed}, logits' error {check.logits_error:.2g}"
    if check.f1_lost is not None:
        more += f", {check.answers_changed:.1%} of the answers changed, F1 lost {check.f1_lost:.2f}"
    if check.f1_lost_interval:
        more += " ({:.2f} to {:.2f})".format(*check.f1_lost_interval)
    print(f"{scores}  {more}")


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    require_model(args.model_dir, "Run: python train.py (or try: python tools/export_onnx.py --sample)")
    require(args.eval_file, "questions to check on", "Run: python download_data.py, or name others: --eval_file")
    impossible = args.handle_impossible_answer or may_find_none(args.model_dir)
    options = {"impossible": impossible} | console.file_options(args)
    examples = read_examples(args.eval_file, "validation", **options)[: args.max_samples]
    texts = read_examples(args.calibration_file, "train", **options)[:RANGE_QUESTIONS]

    from extractive_qa.export.export import export_model  # imports torch

    with writing(args.model_dir, "Expected a folder of your own."):
        kept, checks = export_model(
            args.model_dir, examples, texts, args.force, args.handle_impossible_answer or None, console.progress, show
        )
    names = (path.relative_to(args.model_dir).as_posix() for path in kept)
    print(f"wrote {', '.join(names) or 'nothing'} to {shown(args.model_dir)}")
    refused = [check for check in checks if check.refused]
    if refused and not args.force:
        message = (
            f"refused on {len(examples):,} questions: "
            + "; ".join(f"{check.name}, {check.refused}" for check in refused)
            + ". To keep it all the same: --force"
        )
        if ONNX_FILES["no"] in [check.name for check in refused]:
            raise QAError(message)
        console.warn(message)


if __name__ == "__main__":
    console.run(main)
