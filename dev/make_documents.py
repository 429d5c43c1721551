"""Makes data/sample/documents, a small folder to ask, from the paragraphs of data/sample: a file an article.

    python dev/make_documents.py
    python predict.py ask --sample --documents data/sample/documents --question "Who discovered penicillin?"

Articles of train.json become Markdown with their title as a heading, those of dev.json plain text.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from extractive_qa.files.atomic import replace_folder
from utils import console
from utils.offline import SAMPLE_DATA_DIR


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    output = SAMPLE_DATA_DIR / "documents"
    parser.add_argument("--output_dir", type=Path, default=output, help="where they are written; is replaced")
    args = parser.parse_args(argv)

    def write(folder: Path) -> None:
        for name, ending in (("train", "md"), ("dev", "txt")):
            for article in json.loads((SAMPLE_DATA_DIR / f"{name}.json").read_text(encoding="utf-8"))["data"]:
                title = article["title"].replace("_", " ")
                heading = f"# {title}" if ending == "md" else title
                text = "\n\n".join([heading, *(paragraph["context"] for paragraph in article["paragraphs"])])
                path = folder / f"{article['title'].lower()}.{ending}"
                path.write_text(text + "\n", encoding="utf-8", newline="\n")

    replace_folder(args.output_dir, write)
    print(f"wrote {len(list(args.output_dir.iterdir()))} documents to {args.output_dir}")


if __name__ == "__main__":
    console.run(main)
