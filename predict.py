"""Answers one question, offline."""

from utils.offline import OUTPUT_DIR, go_offline

go_offline()

import argparse
from pathlib import Path

from utils import console
from utils.reader import Reader


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_dir", type=Path, default=OUTPUT_DIR / "final_model")
    parser.add_argument("--question", required=True)
    parser.add_argument("--context", required=True)
    args = parser.parse_args(argv)
    print(Reader(args.model_dir).answer(args.question, args.context))


if __name__ == "__main__":
    console.run(main)
