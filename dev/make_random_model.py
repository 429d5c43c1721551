"""Makes a folder with MobileBERT in its full size and random weights, for timing and memory where there is no Hub.

    python dev/make_random_model.py                 # writes models/mobilebert-random
    python train.py --model_dir models/mobilebert-random --train_file ... --max_steps 20

Random weights cost as much time and memory as trained ones and answer nothing. The configuration is that of
google/mobilebert-uncased (transformers' defaults for MobileBertConfig), the tokenizer that of models/sample, which has
the same 30,522 word pieces.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from extractive_qa.model.folder import require_model
from utils.offline import PROJECT_ROOT, SAMPLE_MODEL_DIR, go_offline

go_offline()

import torch
from transformers import MobileBertConfig, MobileBertModel

from extractive_qa.files.atomic import make_room, replace_folder
from utils import console


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    add = parser.add_argument
    add("--output_dir", type=Path, default=PROJECT_ROOT / "models" / "mobilebert-random", help="where it is written")
    add("--seed", type=int, default=0, help="of the weights")
    args = parser.parse_args(argv)
    make_room(args.output_dir, "--output_dir")
    tokenizer_dir = require_model(SAMPLE_MODEL_DIR, "Restore it with git.")
    torch.manual_seed(args.seed)
    model = MobileBertModel(MobileBertConfig())

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        shutil.copyfile(tokenizer_dir / "tokenizer.json", folder / "tokenizer.json")
        settings = {"tokenizer_class": "MobileBertTokenizer", "do_lower_case": True, "model_max_length": 512}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    replace_folder(args.output_dir, write)
    print(f"wrote {args.output_dir}, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")


if __name__ == "__main__":
    console.run(main)
