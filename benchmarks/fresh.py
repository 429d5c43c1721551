"""What the measurements of memory share: each figure comes from a process of its own, as memory that was used before
is neither given back nor counted twice; and as many questions as SQuAD has, made of those at hand."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path


def in_fresh_process(script: str, **settings: object) -> dict:
    """What `python SCRIPT --part SETTINGS` prints as its last line: a JSON object. SETTINGS are JSON too."""
    command = [sys.executable, script, "--part", json.dumps(settings)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, encoding="utf-8", env=environment())
    if done.returncode:
        raise SystemExit(f"{Path(script).name} --part '{json.dumps(settings)}' failed, exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONIOENCODING": "utf-8"}


def repeat(examples: list[dict], questions: int) -> Iterator[dict]:
    """`questions` examples with distinct ids, one by one. Every repetition of a context begins with another number, so
    contexts are as distinct as the real ones: about 4.6 questions to one."""
    for number in range(questions):
        copy, place = divmod(number, len(examples))
        example = examples[place]
        # now and then a question has a context of its own: of those at hand a little more are asked about one context
        prefix = f"{copy}. " if place % 70 else f"{copy}.{place}. "
        answers = example["answers"]
        yield {
            "id": f"{number:024d}",  # as long as SQuAD's
            "question": example["question"],
            "context": prefix + example["context"],
            "answers": {
                "text": answers["text"],
                "answer_start": [start + len(prefix) for start in answers["answer_start"]],
            },
        }


def write_squad(path: Path, examples: Iterable[dict]) -> None:
    """Writes flat examples in SQuAD's nesting: one paragraph for each run of questions about one context."""
    paragraphs = []
    for example in examples:
        if not paragraphs or paragraphs[-1]["context"] != example["context"]:
            paragraphs.append({"context": example["context"], "qas": []})
        texts, starts = example["answers"]["text"], example["answers"]["answer_start"]
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
        paragraphs[-1]["qas"].append({"id": example["id"], "question": example["question"], "answers": answers})
    path.write_text(json.dumps({"data": [{"title": "all", "paragraphs": paragraphs}]}), encoding="utf-8")
