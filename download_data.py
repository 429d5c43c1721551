"""Gets the data and the model. The only script that uses the network: everything after it works without.

    python download_data.py                                     # both: about 165 MB
    python download_data.py --endpoint https://hf-mirror.com    # from a mirror of the Hub
    python download_data.py --proxy http://127.0.0.1:7890       # through a proxy
    python download_data.py --verify                            # is everything here, and undamaged?
    python download_data.py --teacher                           # and a large reader to learn from: 1.3 GB more

Writes data/squad (SQuAD 1.1: 87,599 questions to train on, 10,570 to be judged by; read it with
datasets.load_from_disk) and models/mobilebert-uncased (config, safetensors, tokenizer), each with a manifest.json.
With --teacher also models/bert-large-uncased-whole-word-masking-finetuned-squad, for train.py --teacher_dir.
A folder appears only when it is complete and checked. Partial downloads lie beside it and are resumed by the next run;
a run that finds everything only verifies.

Files that were fetched in another way are used before any download. Put train-v1.1.json and dev-v1.1.json, or the two
Parquet files of the Hub, into data/downloads/squad; config.json, vocab.txt, tokenizer.json, and pytorch_model.bin or
model.safetensors into models/downloads/mobilebert-uncased (the teacher's into a folder of its own name). The JSON files
are checked by checksum; Parquet files and models, where nothing is left to download, only by what they must hold: the
number of questions, the names and shapes of the weights. A flipped byte in these can go unnoticed: compare their sha256
with the Hub's page.
"""

import argparse
import gc
import importlib.util
import json
import os
import pickle
import shutil
import urllib.request
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from extractive_qa.errors import QAError
from extractive_qa.files.manifest import check_manifest, read_manifest, write_manifest
from extractive_qa.hub.fetch import (
    FetchError,
    Patience,
    RemoteFile,
    fetch,
    find_on_hub,
    matches,
    without_login,
    without_password,
)
from extractive_qa.text import shown
from utils.console import EXIT_CODES, HelpFormatter, be_quiet, note, run, say, warn
from utils.offline import MODEL_DIR, SQUAD_DIR, TEACHER_DIR

HUB = "https://huggingface.co"
DATA_REPO = "rajpurkar/squad"
MODEL_REPOS = {
    "model": "google/mobilebert-uncased",
    "teacher": "google-bert/bert-large-uncased-whole-word-masking-finetuned-squad",
}
ROWS = {"train": 87_599, "validation": 10_570}
PARQUET_FILES = [f"plain_text/{split}-00000-of-00001.parquet" for split in ROWS]
# the original files and what they must be: bytes, sha256
JSON_URL = "https://rajpurkar.github.io/SQuAD-explorer/dataset"
JSON_FILES = {
    "train-v1.1.json": (30_288_272, "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"),
    "dev-v1.1.json": (4_854_279, "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9"),
}
# all that is needed of the model's repository; the last only where there are no safetensors
MODEL_FILES = ["config.json", "vocab.txt", "tokenizer.json", "model.safetensors", "pytorch_model.bin"]
OPTIONAL_FILES = {"tokenizer.json", "model.safetensors"}
BY_HAND = "files that were put there by hand"


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter, usage="python download_data.py [options]",
        epilog=EXIT_CODES,
    )  # fmt: skip
    group = parser.add_argument_group("what to do")
    group.add_argument("--only", choices=["data", *MODEL_REPOS], help="get one alone (default: data and model)")
    group.add_argument("--teacher", action="store_true", help="get the teacher too, for train.py --teacher_dir")
    what = group.add_mutually_exclusive_group()
    what.add_argument("--verify", action="store_true", help="compare what is here with its manifest, download nothing")
    what.add_argument("--force", action="store_true", help="get everything again and replace what is here")

    add = parser.add_argument_group("where from").add_argument
    add("--endpoint", metavar="URL", help=f"the Hub or a mirror of it (default: HF_ENDPOINT, else {HUB})")
    add("--proxy", metavar="URL", help="for all, as HTTPS_PROXY and HTTP_PROXY do (default: none)")
    add("--source", choices=["hub", "json"], help="of the data (default: hub, and json if that fails)")
    add("--json_url", default=JSON_URL, metavar="URL", help="web folder with train-v1.1.json and dev-v1.1.json")
    add("--revision", default="main", help="branch, tag or commit on the Hub; needs --only")

    add = parser.add_argument_group("how it runs").add_argument
    add("--timeout", type=float, default=Patience.timeout, help="seconds without progress: a failure")
    add("--retries", type=int, default=Patience.retries, help="new attempts after such a failure")
    add("--quiet", action="store_true", help="only results, warnings and errors")
    args, unknown = parser.parse_known_args(argv)
    be_quiet(args.quiet)

    args.endpoint = args.endpoint or os.environ.get("HF_ENDPOINT") or HUB  # no default: --help would show its password
    # said here: argparse would show the password of an address behind a flag that is misspelt
    problems = [f"unrecognized arguments: {' '.join(map(without_login, unknown))}"] if unknown else []
    for flag in ("endpoint", "proxy", "json_url"):
        if not is_address(address := getattr(args, flag) or HUB):
            problems.append(f"--{flag} {without_login(address)}: expected an address like http://host:port")
    if args.revision != "main" and args.only is None:
        problems.append("--revision belongs to one repository: add --only data, --only model or --only teacher")
    if args.revision != "main" and args.source == "json":
        problems.append("--revision is about the Hub: leave it out with --source json")
    if args.source and args.only in MODEL_REPOS:
        problems.append(f"--source is about the data: leave it out with --only {args.only}")
    if args.teacher and args.only not in (None, "teacher"):
        problems.append(f"--teacher and --only {args.only} exclude each other: leave one out")
    if not 0 < args.timeout <= 86_400 or args.retries < 0:
        found = f"--timeout {args.timeout:g} --retries {args.retries}"
        problems.append(f"{found}: expected more than 0 and at most 86400 (a day), and 0 or more")
    if problems:
        parser.error("; ".join(problems))
    args.endpoint, args.json_url = args.endpoint.rstrip("/"), args.json_url.rstrip("/")
    return args


def is_address(text):
    try:
        url = urlsplit(text)
        # no blanks: without_password would not find a login with one
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and len(text.split()) == 1
    except ValueError:  # no port number, half an IPv6 address
        return False


def prepare_network(args):
    """Sets the proxy, and the switches that the libraries read when they are imported."""
    os.environ.update({"HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_SAFETENSORS_CONVERSION": "1"})
    for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(switch, "0") != "0":
            note(f"{switch} is set, and left aside here: this is the script that downloads")
            os.environ[switch] = "0"
    if args.proxy:
        names = ("http_proxy", "https_proxy", "all_proxy")
        os.environ.update({form: args.proxy for name in names for form in (name, name.upper())})
    # VPN programs like to set such a proxy; the HTTP libraries would stop at it with an ImportError
    proxies = urllib.request.getproxies()
    socks = [url for kind in ("http", "https", "all") if (url := proxies.get(kind, "")).startswith("socks")]
    if socks and not (importlib.util.find_spec("socks") and importlib.util.find_spec("socksio")):
        raise QAError(
            f"The environment asks for the proxy {without_login(socks[0])}, which needs packages that are not "
            "installed. Expected an HTTP proxy; most SOCKS programs offer one as well. "
            "Run: python download_data.py --proxy http://HOST:PORT"
        )


# ---- files: from the network, or put there by hand ---------------------------------------------------------------


def find_by_hand(name, revision):
    """For get_files where every file was put there by hand: nothing is known of them but their names."""
    return RemoteFile(name, None, "")


def find_in(repo, repo_type, args):
    """For get_files: looks for the files of a repository on the Hub, at the revision that was asked for."""
    patience = Patience(args.timeout, args.retries)
    return lambda name, revision: find_on_hub(repo, repo_type, name, revision or args.revision, args.endpoint, patience)


def get_files(names, find, by_hand, staging, args):
    """({name: path}, revision) of the files: those in the folder `by_hand`, the others downloaded into `staging`.

    find(name, revision) gives a RemoteFile, or raises FileNotFoundError where the source has no such file.
    """
    files, revision = {}, None
    for name in names:
        if name == "pytorch_model.bin" and "model.safetensors" in files:
            continue  # one file of weights is enough
        try:
            remote = find(name, revision)
        except FileNotFoundError as error:
            if name in OPTIONAL_FILES:
                continue
            raise FetchError(str(error)) from error
        revision = remote.revision  # a commit: the other files are taken from the same one
        placed = by_hand / Path(name).name
        if placed.is_file() and not matches(placed, remote):
            raise QAError(
                f"{placed} has {placed.stat().st_size:,} bytes and is not the file at "
                f"{without_password(remote.url)}. Expected {remote}. "
                "Get it again or delete it, then run: python download_data.py"
            )
        files[name] = placed if placed.is_file() else staging / Path(name).name
        fetch(remote, files[name], Patience(args.timeout, args.retries))
    return files, revision


# ---- data ---------------------------------------------------------------------------------------------------------


def get_data(args, by_hand, staging, ready):
    """Saves SQuAD as a dataset in the folder `ready`. Returns where it came from: (source, revision)."""
    hub_folder = without_password(f"{args.endpoint}/datasets/{DATA_REPO}")
    hub = (PARQUET_FILES, find_in(DATA_REPO, "dataset", args), hub_folder)
    original = (
        list(JSON_FILES),
        lambda name, _: RemoteFile(f"{args.json_url}/{name}", *JSON_FILES[name], revision="v1.1"),
        without_password(args.json_url),
    )
    sources = [hub, original]
    if args.source or args.revision != "main":
        sources = [original if args.source == "json" else hub]  # asked for: the other is no substitute
    for names, find, _ in sources:
        if all((by_hand / Path(name).name).is_file() for name in names):
            # the JSON files' checksums are known; of Parquet files without the Hub, only how many rows they must have
            sources = [(names, find_by_hand if names is PARQUET_FILES else find, BY_HAND)]
            break
    failures = []
    for names, find, source in sources:
        if failures:
            warn(f"{failures[-1]}. The original JSON files stand in")
        note(f"data: {source}")
        try:
            files, revision = get_files(names, find, by_hand, staging, args)
            break
        except FetchError as error:
            failures.append(str(error))
    else:
        raise FetchError("\n".join(failures))
    note("data: checking and saving")
    save_data(dict(zip(ROWS, files.values(), strict=True)), ready)
    return source, revision


def save_data(files, ready):
    """Reads {split: file}, checks the number of questions, and saves them in the folder `ready`."""
    from datasets import DatasetDict, disable_progress_bars

    disable_progress_bars()  # it takes seconds
    splits = {split: read_split(path) for split, path in files.items()}
    for split, path in files.items():
        if len(splits[split]) != ROWS[split]:
            raise QAError(
                f"{path} has {len(splits[split]):,} questions. Expected the {ROWS[split]:,} of SQuAD 1.1 ({split}). "
                "Delete it, then run: python download_data.py --only data"
            )
    DatasetDict(splits).save_to_disk(ready)


def read_split(path):
    """The questions in a Parquet file of the Hub or in an original JSON file, as a dataset in memory."""
    import pyarrow.parquet
    from datasets import Dataset, Features, Sequence, Value

    text, texts, starts = Value("string"), Sequence(Value("string")), Sequence(Value("int32"))
    answers = {"text": texts, "answer_start": starts}
    features = Features({"id": text, "title": text, "context": text, "question": text, "answers": answers})
    try:
        if path.suffix == ".parquet":
            rows = pyarrow.parquet.read_table(path, columns=list(features)).to_pylist()
        else:
            rows = [
                {
                    "id": qa["id"],
                    "title": article["title"],
                    "context": paragraph["context"],
                    "question": qa["question"],
                    "answers": {key: [answer[key] for answer in qa["answers"]] for key in answers},
                }
                for article in json.loads(path.read_text(encoding="utf-8"))["data"]
                for paragraph in article["paragraphs"]
                for qa in paragraph["qas"]
            ]
        return Dataset.from_list(rows, features=features)
    # OSError: Arrow says so of some damage
    except (pyarrow.ArrowException, ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise QAError(
            f"{path} can't be read as SQuAD 1.1 ({brief(error)}). Expected {', '.join(features)} of every question. "
            "Delete it, then run: python download_data.py --only data"
        ) from error


# ---- model --------------------------------------------------------------------------------------------------------


def get_model(part, args, by_hand, staging, ready):
    """Makes the folder of one of MODEL_REPOS in `ready`, with safetensors. Returns where it came from: (source,
    revision)."""
    repo = MODEL_REPOS[part]
    placed = {name for name in MODEL_FILES if (by_hand / name).is_file()}
    weights = placed & {"model.safetensors", "pytorch_model.bin"}
    if weights and {"config.json", "vocab.txt"} <= placed:
        names = [name for name in MODEL_FILES if name in placed]
        find, source = find_by_hand, BY_HAND
    else:
        # weights put there by hand decide in which form they are looked for
        names = [name for name in MODEL_FILES if weights != {"pytorch_model.bin"} or name != "model.safetensors"]
        find, source = find_in(repo, "model", args), without_password(f"{args.endpoint}/{repo}")
    note(f"{part}: {source}")
    files, revision = get_files(names, find, by_hand, staging, args)
    note(f"{part}: converting and checking")
    save_model(part, files, ready)
    check_model(part, ready, source)
    return source, revision


def save_model(part, files, ready):
    """Writes config, weights as float32 safetensors, and a tokenizer that says that it lower-cases, to `ready`."""
    from safetensors.torch import save_file

    ready.mkdir(parents=True)
    for name in ("config.json", "vocab.txt", "tokenizer.json"):
        if name in files:
            shutil.copyfile(files[name], ready / name)
    save_tokenizer(part, ready)
    tensors, kept = {}, set()
    state = read_weights(part, files.get("model.safetensors") or files["pytorch_model.bin"])
    # the head of pretraining shares a matrix with the embeddings: kept once, under the encoder's name
    for name in sorted(state, key=lambda name: (name.startswith("cls."), name)):
        tensor = state[name]
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if place not in kept:
            kept.add(place)
            tensors[name] = (tensor.float() if tensor.is_floating_point() else tensor).clone().contiguous()
    save_file(tensors, ready / "model.safetensors", metadata={"format": "pt"})
    shutil.copymode(ready / "config.json", ready / "model.safetensors")  # the library lets only the owner read it


def read_weights(part, path):
    """{name: tensor} from a file of weights. A pickle is read for tensors alone and can't run anything."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, AttributeError) as error:
        raise QAError(
            f"{path} ({path.stat().st_size:,} bytes) can't be read as weights ({brief(error)}). Expected a whole file "
            f"of tensors. Delete it, then run: python download_data.py --only {part}"
        ) from error


def save_tokenizer(part, folder):
    """Makes sure that tokenizer.json lower-cases, as it must here; else, or without one, builds it from vocab.txt.

    Writes tokenizer_config.json too: the repository has none, and what a library assumes without it changes.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer
    from tokenizers.models import WordPiece

    path = folder / "tokenizer.json"
    try:
        vocab = WordPiece.read_file(str(folder / "vocab.txt"))
        tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else None
        normalizer = tokenizer and tokenizer.normalizer
        made = None
        if normalizer is None or normalizer.normalize_str("CAFÉ") != "cafe":
            tokenizer = made = BertWordPieceTokenizer(vocab, lowercase=True)
        words = tokenizer.get_vocab_size()
        problem = None if words == len(vocab) else f"hold {len(vocab):,} and {words:,} words"
    except Exception as error:  # the library raises nothing narrower
        problem = f"can't be read ({brief(error)})"
    if problem:
        raise QAError(
            f"vocab.txt and tokenizer.json {problem}. Expected the files of {MODEL_REPOS[part]}. Files that were put "
            f"there by hand must be replaced (vocab.txt is enough). Then run: python download_data.py --only {part}"
        )
    if made:
        path.write_text(made.to_str(pretty=True), encoding="utf-8")
    kind = "BertTokenizer" if part == "teacher" else "MobileBertTokenizer"
    settings = {"tokenizer_class": kind, "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def check_model(part, folder, source):
    """Loads the folder as train.py will. Raises QAError where weights of the encoder, or the output layer of a
    teacher, or words are missing."""
    from transformers import AutoTokenizer

    from extractive_qa.model.loading import load_encoder

    remedy = f"Expected the files of {MODEL_REPOS[part]}. Files that were put there by hand must be replaced. "
    remedy += f"Then run: python download_data.py --only {part}"
    model, missing = load_encoder(folder, remedy)
    problems = ["was not trained to answer questions"] if part == "teacher" and missing else []
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        problems.append(f"has a tokenizer that can't be loaded ({brief(error)})")
    else:
        if len(tokenizer) != model.config.vocab_size:
            problems.append(f"has {len(tokenizer):,} words for {model.config.vocab_size:,} embeddings")
        if tokenizer.tokenize("CAFÉ") != tokenizer.tokenize("cafe"):
            problems.append("has a tokenizer that doesn't lower-case")
    if problems:
        raise QAError(f"The model ({source}) {' and '.join(problems)}. {remedy}")


def brief(error):
    """The kind of an error and the first line of its text, which in the libraries can be a page."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


# ---- the whole ----------------------------------------------------------------------------------------------------


def hand_folder(folder):
    """Where a user puts files for `folder`: data/downloads/squad, models/downloads/mobilebert-uncased."""
    return folder.parent / "downloads" / folder.name


def verify(folder, part):
    """Compares `folder` with its manifest, byte for byte, and prints what it is. Raises QAError where it differs."""
    remedy = f"Run: python download_data.py --force --only {part}"
    if not folder.is_dir():
        raise QAError(f"{folder} is missing. Run: python download_data.py --only {part}")
    if not check_manifest(folder, full=True, remedy=remedy):
        raise QAError(f"{folder} has no manifest.json. Expected what this script writes. {remedy} (replaces it)")
    manifest = read_manifest(folder)
    size = sum(entry["size"] for entry in manifest["files"]) / 1e6
    print(f"{folder}: {len(manifest['files'])} files, {size:,.1f} MB, all as they should be")
    print(f"    from {manifest['source']} ({manifest['revision'] or 'revision unknown'}), {manifest['date']}")


def make(folder, build, args):
    """Builds a folder beside its place, and puts it there when it is complete. What is there stays until then."""
    from safetensors import SafetensorError

    staging = folder.with_name(f".partial-{folder.name}")
    ready, old = staging / "ready", staging / "old"
    for leftover in (ready, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        source, revision = build(args, hand_folder(folder), staging, ready)
        write_manifest(ready, source, revision)
        gc.collect()  # the model that was loaded for a check maps its file, and Windows can't rename it until then
        if folder.exists():
            folder.replace(old)  # Windows can't put one folder over another
        try:
            ready.replace(folder)
        except OSError:
            recover(folder)
            raise
    except (OSError, SafetensorError) as error:  # the latter wraps the system's
        place = getattr(error, "filename2", None) or getattr(error, "filename", None) or staging
        raise QAError(
            f"{place}: {getattr(error, 'strerror', None) or error}. Expected to be able to write there. Check space, "
            "rights and programs that use the folder, then run the same command again"
        ) from error
    shutil.rmtree(staging, ignore_errors=True)


def recover(folder):
    """Puts the old folder back where a run ended between the two renames of make."""
    old = folder.with_name(f".partial-{folder.name}") / "old"
    if old.exists() and not folder.exists():
        old.replace(folder)


def ways_out(missing):
    """What to do when a download fails for good, with the address of every file that is not here yet."""
    lines = [
        "Three ways out:",
        "  1. a mirror of the Hub:  python download_data.py --endpoint https://hf-mirror.com",
        "  2. a proxy:              python download_data.py --proxy http://127.0.0.1:7890",
        "  3. by hand: get these files with a browser or on another machine, then run python download_data.py",
    ]
    urls = {
        "data": [f"{JSON_URL}/{name}" for name in JSON_FILES],
        "model": [name for name in MODEL_FILES if name != "model.safetensors"],
        "teacher": [name for name in MODEL_FILES if name != "pytorch_model.bin"],
    }
    for part, repo in MODEL_REPOS.items():
        urls[part] = [f"{HUB}/{repo}/resolve/main/{name}" for name in urls[part]]
    for part, folder in missing.items():
        lines += [f"     into {hand_folder(folder)}", *(f"       {url}" for url in urls[part])]
    return "\n".join([*lines, "Partial downloads are kept: the same command goes on from there."])


def main(argv=None):
    args = parse_args(argv)
    folders = {"data": SQUAD_DIR, "model": MODEL_DIR, "teacher": TEACHER_DIR}
    if args.only:
        folders = {args.only: folders[args.only]}
    elif not args.teacher:
        del folders["teacher"]

    for folder in folders.values():
        recover(folder)
    problems = []
    missing = {part: folder for part, folder in folders.items() if args.force or not folder.exists()}
    for part, folder in folders.items():
        if args.verify or part not in missing:
            try:
                verify(folder, part)
            except QAError as error:
                problems.append(str(error))
    if problems:
        raise QAError("\n".join(problems))
    if args.verify or not missing:
        return

    prepare_network(args)
    for part, folder in list(missing.items()):
        try:
            make(folder, get_data if part == "data" else partial(get_model, part), args)
        except FetchError as error:
            raise QAError(f"{error}\n{ways_out(missing)}") from error
        del missing[part]
        verify(folder, part)
    if SQUAD_DIR.exists() and MODEL_DIR.exists():
        teacher = f" --teacher_dir {shown(TEACHER_DIR)}" if "teacher" in folders else ""
        say(f"Next: python train.py{teacher}")


if __name__ == "__main__":
    run(main)
