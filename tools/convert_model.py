"""Makes a model folder in an older form one that every script reads: safetensors and tokenizer.json.

    python tools/convert_model.py DIR OUT
    python predict.py ask --model_dir OUT --question "Who wrote it?" --context "Ada wrote it."

DIR holds config.json, weights (pytorch_model.bin, or safetensors) and a tokenizer (vocab.txt, vocab.json with
merges.txt, spiece.model, spm.model, sentencepiece.bpe.model, or tokenizer.json). It stays as it is; OUT is written
whole or not at all. Weights are read for tensors alone, no code that lies in DIR is run, nothing is fetched. The logits
of a few inputs are compared before and after. Tokenizers of SentencePiece (*.model) need two packages more:
pip install sentencepiece protobuf
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import go_offline

go_offline()

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import make_room, replace_folder
from extractive_qa.files.reading import require
from extractive_qa.model.folder import MODEL_FOLDER, require_folder
from extractive_qa.text import as_argument, shown
from utils import console


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = console.make_parser(__doc__, "python tools/convert_model.py [options] DIR OUT")
    parser.add_argument("model_dir", metavar="DIR", type=Path, help="the folder in an older form")
    parser.add_argument("output_dir", metavar="OUT", type=Path, help="the folder to make, not there yet")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    require_folder(args.model_dir, "Name the folder that holds config.json.")
    require(args.model_dir / "config.json", f"what is to become {MODEL_FOLDER}", "Name the folder that holds it.")
    if args.output_dir.exists():
        raise QAError(f"{args.output_dir} is there already. Expected the name of a new folder: nothing is overwritten.")
    make_room(args.output_dir, "OUT")

    from extractive_qa.model.convert import convert_model  # imports torch

    found = []
    replace_folder(args.output_dir, lambda new: found.extend(convert_model(args.model_dir, new)))
    missing, largest = found
    print(f"wrote {shown(args.output_dir)}; logits before and after differ by at most {largest:.2g}")
    folder = as_argument(args.output_dir)
    if missing:
        console.note(f"It was not trained to answer questions. Next: python train.py --model_dir {folder}")
    else:
        console.note(f"Next: python predict.py ask --model_dir {folder} --question ... --context ...")


if __name__ == "__main__":
    console.run(main)
