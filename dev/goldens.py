"""Records what the scripts produce, so that a restructuring can be shown to change nothing.

    python dev/goldens.py record before.json --project ../old_checkout
    python dev/goldens.py record after.json
    python dev/goldens.py compare before.json after.json      # exit code 1 where anything differs

Runs the scripts of a checkout as a user does, by command line, in temporary copies of it: the checkout stays as it is.
For each command of STORIES the record has the exit code, both outputs, and every file that it wrote or removed: short
texts as they are, all else as sha256. What differs from run to run (times, memory, dates, folders) is replaced by a
word. Make both records on one machine with one set of packages: sums of floats differ between processors.
"""

import argparse
import difflib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parents[1]
LONGEST_TEXT = 20_000  # bytes of a file that is recorded as text

# ---- the files that the commands read, in the folder in/ ----------------------------------------------------------

ADA = {
    "id": "q1", "question": "Where did Ada sail to?", "context": "In 1871 Ada sailed to Ærø.",
    "answers": {"text": ["Ærø"], "answer_start": [22]},
}  # fmt: skip
WHO = ADA | {"id": "q2", "question": "Who sailed?", "answers": {"text": ["Ada"], "answer_start": [8]}}


def lines(*records: dict) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def squad(*answers: dict, **more) -> str:
    qa = {"id": "q1", "question": "Who?", "answers": answers} | more
    return json.dumps({"data": [{"title": "A", "paragraphs": [{"context": ADA["context"], "qas": [qa]}]}]})


BAD_FILES = {
    "duplicate.jsonl": lines(ADA, WHO, ADA),
    "duplicate.json": json.dumps([ADA, WHO, ADA]),
    "offset.jsonl": lines(ADA, WHO | {"answers": {"text": ["Ada"], "answer_start": [3]}}),
    "offset.json": squad({"text": "Ada", "answer_start": 3}),
    "fields.json": json.dumps([ADA, {"id": "q2", "question": 7}, "text", None, WHO | {"context": " "}]),
    "broken.jsonl": lines(ADA) + '{"id": "q2", "question"\n' + lines(WHO),
    "broken.json": squad()[:-9],
    "array.jsonl": json.dumps([ADA]),
    "lines.json": lines(ADA, WHO),
    "no_data.json": '{"questions": []}',
    "no_paragraphs.json": '{"data": [{"paragraphs": []}, {"title": "B"}]}',
    "empty.jsonl": "",
    "no_answer.jsonl": lines(ADA, WHO | {"answers": {"text": [], "answer_start": []}}),
    "no_answer.json": squad(is_impossible=True),
    "columns.csv": "id,question\nq1,Who?\n",
    "quotes.csv": 'question,context,answer\nWho?,"In 1871 Ada sailed.,Ada\n',
    "cells.csv": "question,context,answer\nWho?,In 1871, Ada sailed.,Ada\nWho?,Ada sailed.,Ada\n",
    "utf16.csv": "\ufeffquestion,context,answer\n".encode("utf-16-le"),
    "latin1.jsonl": lines(ADA).encode() + '{"id": "née"}'.encode("latin-1"),
    "junk.parquet": "PAR1 and nothing else",
    "questions.txt": lines(ADA),
}
FILES = BAD_FILES | {
    "good.jsonl": lines(ADA, WHO),
    "good.csv": "question,context\nWho?,In 1871 Ada sailed.\n",
    "context.txt": ADA["context"],
    "pipe.txt": lines(ADA, WHO) + "{\n",
    "typed.txt": ":file absent\nIn 1871 Ada sailed.\n\nWho sailed?\n \n:file in/context.txt\nWhen?\n:quit\n",
    "empty.json": "{}",
    "list.json": "[]",
    "number.json": '{"q1": 7}',
    "right.json": '{"q1": "Ærø", "q2": "Ada"}',
    "half.json": '{"q1": "Ærø"}',
    "others.json": '{"q7": "Ada"}',
}
# copies of models/sample in which one file is missing or another
BAD_MODELS = {
    "no_config": ("config.json", None),
    "no_weights": ("model.safetensors", None),
    "no_tokenizer": ("tokenizer.json", None),
    "no_settings": ("reader.json", None),
    "cut_weights": ("model.safetensors", "cut"),
    "other_family": ("config.json", '{"model_type": "gpt2"}'),
    "bad_tokenizer": ("tokenizer.json", "{}"),
    "broken_settings": ("reader.json", '{"max_length": '),
    "wrong_settings": ("reader.json", '{"max_length": 9999, "doc_stride": "x", "temperature": -1}'),
}

# ---- the commands. Each story runs in a copy of its own; {a,b} as in a shell, < a file, ^C when a path appears -----

NAMES = {
    "BATCH": "predict.py batch --model_dir models/sample --device cpu",
    "ASK": 'predict.py ask --question "Who sailed?" --context "In 1871 Ada sailed to Oslo."',
    "TRAIN": "train.py --sample --device cpu --mixed_precision no --output_dir out/run --gradient_accumulation_steps 2 "
    "--max_train_samples 48 --max_eval_samples 20 --num_train_epochs 2 --save_steps 3 --logging_steps 2",
    "SCORE": "evaluate.py --sample --device cpu --mixed_precision no --output_dir",
    "PREDICTIONS": "evaluate.py --eval_file in/good.jsonl --predictions",
    "BAD_FILES": ",".join(BAD_FILES),
    "BAD_MODELS": ",".join(BAD_MODELS),
}
STORIES = """
[answers, torch]
$BATCH --backend torch --mixed_precision no --input in/real.jsonl --output out/real.jsonl
$BATCH --mixed_precision no --input data/sample/dev.json --output out/three.csv --top_k 3
$BATCH --mixed_precision bf16 --input data/sample/dev.json --output out/three.jsonl --top_k 3 --batch_size 3
$BATCH --mixed_precision no --input data/sample/custom/dev.csv --output out/sure.jsonl --min_confidence 0.5
$BATCH --mixed_precision no --input in/no_answer.jsonl --output out/none.csv --handle_impossible_answer
[answers, ONNX]
$ASK --backend onnx
export_onnx.py --model_dir models/sample --eval_file data/sample/dev.json --force
$BATCH --backend onnx --mixed_precision no --input in/real.jsonl --output out/real.jsonl
$BATCH --backend onnx --mixed_precision int8 --input in/real.jsonl --output out/int8.jsonl
$BATCH --input in/{absent,$BAD_FILES} --output out/a.jsonl --overwrite
$BATCH --input in/good.csv --output {out/a.csv,out/a.csv,out/a.csv --overwrite,-,absent/a.csv,out,in/good.csv}
$BATCH --input - --output {-,out/pipe.jsonl --quiet} < in/pipe.txt
$ASK --json --top_k 3
$ASK --min_confidence 1 {--json,--quiet}
$ASK --backend onnx --{mixed_precision bf16,device cuda}
predict.py ask --question Who? --context_file in/{absent.txt,utf16.csv,context.txt --top_k 2}
predict.py ask {--question Who? --context " ",--question "" --context Ada}
predict.py {demo,< in/typed.txt}
evaluate.py --sample --output_dir out/int8 --max_samples 20
truncate --size -1 models/sample/onnx/model_quantized.onnx
$ASK {--backend onnx,--json}
[training]
$TRAIN {,--resume,--overwrite_output_dir --train_file out/run/final_model/reader.json,--logging_steps 1}
evaluate.py --model_dir out/run/final_model --eval_file in/good.jsonl --output_dir out/scores --report
[training, resumed]
$TRAIN --resume
$TRAIN ^C out/run/checkpoint-3
train.py --sample --output_dir out/run --resume
truncate --size -1 out/run/checkpoint-12/model.safetensors
train.py --output_dir out/run --resume --save_steps 100
[training, other settings]
train.py --sample --device cpu --max_train_samples 16 --max_steps 2 --joined_contexts 0.5 --teacher_dir models/sample
predict.py demo --sample
[scores]
$SCORE out/a --report --show_examples 3
$SCORE out/b --batch_size 5 --n_best_size 3 --compare out/a --report --quiet
$SCORE out/few --max_samples 10
$SCORE out/c --compare {out/few,out/c,absent}
$SCORE out/fitted --calibrate
$SCORE out/squad2 --eval_file in/no_answer.jsonl --handle_impossible_answer --report
$SCORE in/right.json
evaluate.py --sample --predictions out/a/predictions.json --compare out/b
$PREDICTIONS in/{right.json --show_examples,half.json --report --output_dir out/half,right.json --calibrate}
$PREDICTIONS in/{absent,empty,list,number,others}.json
evaluate.py --max_samples 0 --n_best_size 0 --batch_size 0 --show_examples -1
evaluate.py {,--eval_file in/good.jsonl,--eval_file in/good.jsonl --model_dir in/no_weights}
[bad files]
evaluate.py --predictions in/right.json --eval_file in/{absent,$BAD_FILES}
evaluate.py --predictions in/right.json --skip_bad_examples --eval_file in/{duplicate.jsonl,fields.json,cells.csv}
inspect_data.py {,in/good.jsonl --show -1 --max_answer_length 0 --doc_stride 999,in/fields.json}
inspect_data.py data/sample/train.json --eval_file data/sample/dev.json
inspect_data.py data/sample/custom/{not_utf8.csv,mistakes.csv,mistakes.csv --skip_bad_examples --max_length 64}
[wrong settings]
predict.py --{unknown,question Who?,top_k 0 --batch_size 0 --min_confidence 1.5}
predict.py {nonsense,ask,batch,ask --input in/good.jsonl,ask --question Who? --context A --context_file in/context.txt}
$ASK --{device cuda,device tpu,mixed_precision int8,mixed_precision int8 --backend torch}
$ASK --model_dir in/{absent,$BAD_MODELS}
train.py {,--unknown,--preset nonsense,--per_device_train_batch_size some,--max_length 10 --save_steps 0}
train.py --num_train_epochs 0 --max_steps 0 --learning_rate 0 --weight_decay -1 --warmup_ratio 2 --seed -1
train.py --sample --device cpu --{resume,preset best,fp16,max_length 600,output_dir in/good.csv,teacher_dir in/absent}
train.py --sample --{device cuda,model_dir in/no_weights,model_dir in/other_family}
train.py --sample --{train_file in/offset.jsonl,eval_file in/absent,train_file in/empty.jsonl --skip_bad_examples}
export_onnx.py --{max_samples 0,model_dir in/no_weights,sample --eval_file in/offset.jsonl}
make_sample.py --output_dir out/sample --model_dir {models/sample,in/no_settings}
[help, downloads]
{predict,train,evaluate,download_data,export_onnx,inspect_data}.py --help
download_data.py --endpoint ftp://here --timeout 0 --retries -1 --revision v1 --source json --unknown
download_data.py --{verify,verify --force,only model --source json --teacher}
download_data.py --only data --retries 0 --timeout 5 --source {hub --endpoint,json --json_url} http://127.0.0.1:9
make_random_model.py --output_dir models/downloads/mobilebert-uncased
cp in/vocab.txt models/downloads/mobilebert-uncased
download_data.py --only model {,--verify}
truncate --size -1 models/mobilebert-uncased/model.safetensors
download_data.py --only model --verify
truncate --size 99 models/downloads/mobilebert-uncased/model.safetensors
download_data.py --only model --force
"""
# ---- what differs between two runs of the same code: (pattern, what is recorded instead) --------------------------

VARIES = [
    (r"(?m)^\w[^\n]*: +\d+%, .*\n", ""),  # the state of a bar, every half minute
    (r"(?m)(^|(?<=\r))[^\r\n]*\d+%\|[^\r\n]*\r?", ""),  # a bar of a library; tried once a line, as some are long
    (r"\b\d[\d,.]{0,20}(?=( s| min|( questions)?/s)\b)", "N"),
    (r"peak memory [\d,]+ MB", "peak memory N MB"),
    (r'("(questions_per_second|memory_mb)": )[\d.]+', r"\1N"),
    (r"\b[0-9a-f]{64}\b", "SHA256"),  # of files that hold what differs
    (r"\b20\d\d-\d\d-\d\d\b", "DATE"),
    (r"0x[0-9a-f]{6,}", "0xN"),
]
# the files that hold such things; all others are recorded byte for byte
VARYING = re.compile(r"(training_log|reader|metrics|state|complete|manifest|onnx)\.jsonl?|.+\.(html|md|progress|done)")
NOT_RECORDED = re.compile(r"events\.out\.tfevents\..+")  # named after the time and the process
# of the user's environment
NOT_PASSED_ON = re.compile(r"(HF|TRANSFORMERS|OMP|MKL|PYTHON)_?.*|.*_proxy|COLUMNS|NO_COLOR", re.IGNORECASE)
# one thread and no GPU: the same sums, bit for bit
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100",
    "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1",
}  # fmt: skip


def read_stories() -> dict[str, list[str]]:
    """{name of a story: its commands}."""
    stories = {}
    for line in Template(STORIES).substitute(NAMES).split("\n"):
        if line.startswith("["):
            commands = stories.setdefault(line.strip("[]"), [])
        elif line:
            commands += expand(line)
    return stories


def expand(line: str) -> list[str]:
    """The commands of a line: one for each word of {a,b}."""
    if not (found := re.search(r"\{([^{}]*)\}", line)):
        return [line.strip()]
    before, after = line[: found.start()], line[found.end() :]
    return [command for word in found[1].split(",") for command in expand(before + word + after)]


def prepare(project: Path, questions: Path, limit: int | None) -> None:
    """Writes the files that the commands read, among them the real questions, with two bad lines at the end."""
    folder, sample = project / "in", project / "models" / "sample"
    folder.mkdir()
    (project / "out").mkdir()
    for model, (name, content) in BAD_MODELS.items():
        shutil.copytree(sample, folder / model, copy_function=os.link)  # no command writes into these files
        (folder / model / name).unlink()
        if content:
            (folder / model / name).write_text(content, encoding="utf-8")
    for name, content in FILES.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    words = json.loads((sample / "tokenizer.json").read_bytes())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(words, key=words.get)) + "\n", encoding="utf-8")
    real = [
        {"id": qa["id"], "question": qa["question"], "context": paragraph["context"]}
        for article in json.loads(questions.read_bytes())["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    (folder / "real.jsonl").write_text(lines(*real[:limit], {"id": "bad"}) + "{", encoding="utf-8")


def tell(args: argparse.Namespace, work: Path, story: str, commands: list[str]) -> dict[str, dict]:
    """Runs the commands of a story in a copy of the checkout. Returns {command: what it did}."""
    began, folder, told = time.monotonic(), Path(tempfile.mkdtemp(dir=work)), {}
    project = folder / "project"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]  # all but what was made here
    for name in subprocess.check_output(listed, cwd=args.project, text=True).split("\0"):
        if (args.project / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(args.project / name, project / name)
    prepare(project, args.questions, None if args.all else 600)
    before = list_files(project)
    for command in commands:
        done = run(command, project, folder / "hub")
        after = list_files(project)
        changed = [path for path in before | after if before.get(path) != after.get(path)]
        done["files"] = {path: read(project, path) if path in after else "removed" for path in changed}
        told[command + " again" if command in told else command] = done
        before = after
    shutil.rmtree(folder)
    print(f"{story}: {len(told)} commands in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return told


def run(command: str, project: Path, hub: Path) -> dict:
    """Exit code and outputs of a command: a script, wherever the checkout keeps it, or a program of the system."""
    command, _, interrupt = command.partition("^C")
    command, _, source = command.partition("< ")
    program, *words = shlex.split(command)
    if program.endswith(".py"):
        places = (project / place / program for place in ("", "tools", "dev"))
        words = [next((str(place) for place in places if place.exists()), program), *words]
        program = sys.executable
    environment = {name: value for name, value in os.environ.items() if not NOT_PASSED_ON.fullmatch(name)}
    process = subprocess.Popen(
        [program, *words], cwd=project, env=environment | ENVIRONMENT | {"HF_HOME": str(hub)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    if interrupt:
        while not (project / interrupt.strip()).exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
    outputs = process.communicate((project / source.strip()).read_bytes() if source else b"")
    texts = [without_varying(output.decode("utf-8", "backslashreplace"), project) for output in outputs]
    return {"exit code": process.returncode, "stdout": texts[0], "stderr": texts[1]}


def list_files(project: Path) -> dict[str, tuple[int, int]]:
    """{path: size and time of the last change}."""
    paths = [path for path in project.rglob("*") if path.is_file() and not NOT_RECORDED.fullmatch(path.name)]
    return {path.relative_to(project).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def read(project: Path, name: str) -> str:
    """What is recorded of a file: its text where that is short, else its sha256."""
    content = (project / name).read_bytes()
    if VARYING.fullmatch(Path(name).name):
        content = without_varying(content.decode(), project).encode()
    try:
        if len(content) <= LONGEST_TEXT:
            return content.decode()
    except UnicodeDecodeError:
        pass
    return f"sha256 {hashlib.sha256(content).hexdigest()}"


def without_varying(text: str, project: Path) -> str:
    text = text.replace(str(project), "PROJECT")
    for pattern, word in VARIES:
        text = re.sub(pattern, word, text)
    return text


def record(args: argparse.Namespace) -> None:
    stories = read_stories()
    if args.skip_training:
        stories = {name: commands for name, commands in stories.items() if not name.startswith("training")}
    with tempfile.TemporaryDirectory(prefix="goldens_") as work, ThreadPoolExecutor(args.jobs) as pool:
        told = list(pool.map(partial(tell, args, Path(work)), stories, stories.values()))
    content = dict(zip(stories, told, strict=True))
    args.file.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {sum(map(len, told))} commands to {args.file}")
    if not args.skip_training:
        weights = [last_weights(content[name]) for name in ("training", "training, resumed")]
        if weights[0] != weights[1]:
            sys.exit(f"a training that was resumed has other weights: {weights}")


def last_weights(told: dict[str, dict]) -> str:
    path = "out/run/final_model/model.safetensors"
    return [done["files"][path] for done in told.values() if path in done["files"]][-1]


def compare(args: argparse.Namespace) -> None:
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (args.first, args.second))
    for story in sorted(first.keys() ^ second.keys()):
        print(f"not compared, as it is in one record only: {story}")
    both = sorted(first.keys() & second.keys())
    before, after = (dict(flatten({story: content[story] for story in both})) for content in (first, second))
    differ = [place for place in before | after if before.get(place) != after.get(place)]
    for place in differ:
        print(f"\n== {' | '.join(place)}\n{difference(before.get(place, 'nothing'), after.get(place, 'nothing'))}")
    print(f"\n{len(before):,} values in {len(both)} stories, {len(differ):,} differ")
    sys.exit(1 if differ else 0)


def flatten(tree: dict, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """(place, value) of every value in nested dicts."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, (*place, name))
        else:
            yield (*place, name), value


def difference(before: object, after: object) -> str:
    texts = [str(value).split("\n") for value in (before, after)]  # other line ends are a difference
    return "\n".join(difflib.unified_diff(*texts, n=1, lineterm="")).removeprefix("--- \n+++ \n")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(required=True)
    mode = modes.add_parser("record", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    mode.set_defaults(run=record)
    add = mode.add_argument
    add("file", type=Path, help="where the record is written")
    add("--project", type=Path, default=ROOT, help="the checkout whose scripts are run")
    add("--questions", type=Path, default=ROOT.parent / "shared/squad/dev_a.json", help="real ones, SQuAD's JSON")
    add("--all", action="store_true", help="answer all of them, not the first 600")
    add("--skip_training", action="store_true", help="leave the stories of training out")
    add("--jobs", type=int, default=os.cpu_count(), help="stories that run at the same time")
    mode = modes.add_parser("compare")
    mode.set_defaults(run=compare)
    mode.add_argument("first", type=Path)
    mode.add_argument("second", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_args()
    arguments.run(arguments)
