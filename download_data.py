"""Gets the data and the model. The only script that uses the network: everything after it works without.

    python download_data.py                                     # both: about 165 MB
    python download_data.py --endpoint https://hf-mirror.com    # from a mirror of the Hub
    python download_data.py --proxy http://127.0.0.1:7890       # through a proxy
    python download_data.py --verify                            # is everything here, and undamaged?
    python download_data.py --teacher                           # and a large reader to learn from: 1.3 GB more

Writes data/squad (SQuAD 1.1: 87,599 questions to train on, 10,570 to evaluate on; read it with
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
import importlib.util
import os
import shutil
import ssl
from pathlib import Path

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import recover, replace_folder
from extractive_qa.files.manifest import check_manifest, read_manifest, write_manifest
from extractive_qa.hub.options import HUB, JSON_URL, DownloadOptions, Patience, is_address, without_login
from extractive_qa.text import as_argument
from utils.console import be_quiet, make_parser, note, progress, run, say
from utils.offline import MODEL_DIR, SQUAD_DIR, TEACHER_DIR

# torch, datasets and the HTTP libraries take seconds to import: only where they are needed, so that --help, a wrong
# flag and a folder that is already there are answered at once


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__, "python download_data.py [options]")
    # without any of these: what is missing is got, what is here is verified
    group = parser.add_argument_group("what to do")
    group.add_argument("--only", choices=["data", "model", "teacher"], help="get one alone (default: data and model)")
    group.add_argument("--teacher", action="store_true", help="get the teacher too, for train.py --teacher_dir")
    # opposites: one changes nothing, the other replaces everything
    what = group.add_mutually_exclusive_group()
    what.add_argument("--verify", action="store_true", help="compare what is here with its manifest, download nothing")
    what.add_argument("--force", action="store_true", help="get everything again and replace what is here")

    add = parser.add_argument_group("where from").add_argument
    # no default here: --help would show the password in HF_ENDPOINT
    add("--endpoint", metavar="URL", help=f"the Hub or a mirror of it (default: HF_ENDPOINT, else {HUB})")
    # both may hold a login, which is never shown
    add("--proxy", metavar="URL", help="for all, as HTTPS_PROXY and HTTP_PROXY do (default: none)")
    # the same questions twice: as Parquet on the Hub, as the authors' own JSON files. The sha256 of these is known, so
    # that any web server will do
    add("--source", choices=["hub", "json"], help="of the data (default: hub, and json if that fails)")
    add("--json_url", default=JSON_URL, metavar="URL", help="web folder with train-v1.1.json and dev-v1.1.json")
    # the commit is written to manifest.json, and names the same bytes for ever
    add("--revision", default="main", help="branch, tag or commit on the Hub; needs --only")

    add = parser.add_argument_group("how it runs").add_argument
    # counted from the last byte that came: a slow line may take hours
    add("--timeout", type=float, default=Patience.timeout, help="seconds without progress: a failure")
    add("--retries", type=int, default=Patience.retries, help="new attempts after such a failure")
    add("--quiet", action="store_true", help="only results, warnings and errors")

    # not parse_args: it would show the password in an address behind a flag that is misspelt
    args, unknown = parser.parse_known_args(argv)
    be_quiet(args.quiet)
    # the variable that the Hub's own client reads
    args.endpoint = args.endpoint or os.environ.get("HF_ENDPOINT") or HUB

    # every problem at once, before any work, and no address with its login
    problems = [f"unrecognized arguments: {' '.join(map(without_login, unknown))}"] if unknown else []
    for flag in ("endpoint", "proxy", "json_url"):
        if not is_address(address := getattr(args, flag) or HUB):
            problems.append(f"--{flag} {without_login(address)}: expected an address like http://host:port")
    if args.revision != "main" and args.only is None:
        problems.append("--revision belongs to one repository: add --only data, --only model or --only teacher")
    if args.revision != "main" and args.source == "json":
        problems.append("--revision is about the Hub: leave it out with --source json")
    if args.source and args.only in ("model", "teacher"):
        problems.append(f"--source is about the data: leave it out with --only {args.only}")
    if args.teacher and args.only not in (None, "teacher"):
        problems.append(f"--teacher and --only {args.only} exclude each other: leave one out")
    # also false for NaN
    if not 0 < args.timeout <= 86_400 or args.retries < 0:
        found = f"--timeout {args.timeout:g} --retries {args.retries}"
        problems.append(f"{found}: expected more than 0 and at most 86400 (a day), and 0 or more")
    if problems:
        parser.error("; ".join(problems))
    # "/owner/name" is put behind these
    args.endpoint, args.json_url = args.endpoint.rstrip("/"), args.json_url.rstrip("/")
    return args


def prepare_network(proxy: str | None) -> None:
    """Sets the proxy, and the switches that the libraries read when they are imported."""
    # nobody is told what runs here, and transformers doesn't ask the Hub for a conversion
    os.environ.update({"HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_SAFETENSORS_CONVERSION": "1"})
    # a user who sets these for the other scripts means them, not this one
    for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(switch, "0") != "0":
            note(f"{switch} is set, and ignored here: this is the script that downloads")
            os.environ[switch] = "0"
    trust_certificates()
    # the HTTP libraries differ in which of these they read
    if proxy:
        names = ("http_proxy", "https_proxy", "all_proxy")
        os.environ.update({form: proxy for name in names for form in (name, name.upper())})
    # VPN programs like to set a SOCKS proxy; the HTTP libraries would stop at it with an ImportError
    from urllib.request import getproxies

    proxies = getproxies()
    socks = [url for kind in ("http", "https", "all") if (url := proxies.get(kind, "")).startswith("socks")]
    # PySocks for requests, socksio for the Hub's client
    if socks and not (importlib.util.find_spec("socks") and importlib.util.find_spec("socksio")):
        raise QAError(
            f"The environment asks for the proxy {without_login(socks[0])}, which needs packages that are not "
            "installed. Expected an HTTP proxy; most SOCKS programs offer one as well. "
            "Run: python download_data.py --proxy http://HOST:PORT"
        )


def trust_certificates() -> None:
    """Has every HTTP library trust the certificates that the user names in the variable of any one: a company's own,
    for instance. Raises QAError where they can't be read."""
    # of requests, in its order; of httpx and the Hub's client
    ours, theirs = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), ("SSL_CERT_FILE", "SSL_CERT_DIR")
    given = {name: os.environ[name] for name in (*ours, *theirs) if os.environ.get(name)}
    for name, path in given.items():
        try:
            ssl.create_default_context(**{"capath" if Path(path).is_dir() else "cafile": path})
        except OSError as error:  # of ssl too
            raise QAError(
                f"{name} names {path}, which can't be read ({error.strerror or error}). Expected a file with "
                "certificates (PEM). Correct the variable, then run the same command again."
            ) from None
    if given and not given.keys() & set(ours):
        os.environ["REQUESTS_CA_BUNDLE"] = next(iter(given.values()))
    if given and not given.keys() & set(theirs):
        path = next(iter(given.values()))
        os.environ["SSL_CERT_DIR" if Path(path).is_dir() else "SSL_CERT_FILE"] = path


def hand_folder(folder: Path) -> Path:
    """Where a user puts files for `folder`: data/downloads/squad, models/downloads/mobilebert-uncased."""
    return folder.parent / "downloads" / folder.name


def download(part: str, folder: Path, options: DownloadOptions) -> None:
    """Makes `folder` whole: the data, the model or the teacher. Raises FetchError where no source has the files."""
    from extractive_qa.hub.sources import get_files

    # first the files as they are published. What a broken run has left in `arrived` is resumed, and stays until all is
    # done: a converted folder that can't be written costs no second download
    arrived = folder.with_name(f".partial-{folder.name}")
    fetched = get_files(part, hand_folder(folder), arrived, options)

    def write(new: Path) -> None:
        # checked as it is converted: the number of questions, the names and shapes of the weights
        if part == "data":
            from extractive_qa.hub.squad_dataset import save_data

            save_data(*fetched.files.values(), new)
        else:
            from extractive_qa.hub.convert_model import save_model

            save_model(part, fetched.files, fetched.source, new)
        # size and sha256 of every file, for --verify and for the scripts that read them
        write_manifest(new, fetched.source, fetched.revision)

    # then the folder that the other scripts read. What is there stays until the new one is complete, also with --force
    replace_folder(folder, write, "run the same command again")
    # as large as the folder, and no longer needed
    shutil.rmtree(arrived, ignore_errors=True)


def verify(folder: Path, part: str) -> None:
    """Compares `folder` with its manifest, byte for byte, and prints what it is. Raises QAError where it differs."""
    # seconds of reading, against hours of training on a damaged file
    remedy = f"Run: python download_data.py --force --only {part}"
    if not folder.is_dir():
        raise QAError(f"{folder} is missing. Run: python download_data.py --only {part}")
    # a user's own folder, maybe: never replaced without being asked to
    if not check_manifest(folder, full=True, remedy=remedy):
        raise QAError(f"{folder} has no manifest.json. Expected what this script writes. {remedy} (replaces it)")
    manifest = read_manifest(folder)
    size = sum(entry["size"] for entry in manifest["files"]) / 1e6  # bytes to MB
    print(f"{folder}: {len(manifest['files'])} files, {size:,.1f} MB, all as they should be")
    print(f"    from {manifest['source']} ({manifest['revision'] or 'revision unknown'}), {manifest['date']}")


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    # the small one first
    folders = {"data": SQUAD_DIR, "model": MODEL_DIR, "teacher": TEACHER_DIR}
    if args.only:
        folders = {args.only: folders[args.only]}
    elif not args.teacher:
        del folders["teacher"]

    # where a run was killed between taking the old folder away and putting the new one there, the old one comes back
    for folder in folders.values():
        recover(folder)

    # what is here is verified, and all that is wrong is said at once
    missing = {part: folder for part, folder in folders.items() if args.force or not folder.exists()}
    problems = []
    for part, folder in folders.items():
        # with --force what is here need not be whole
        if args.verify or part not in missing:
            try:
                verify(folder, part)
            except QAError as error:
                problems.append(str(error))
    if problems:
        raise QAError("\n".join(problems))
    # nothing to get: the network is not even prepared
    if missing and not args.verify:
        fetch(missing, args)

    # the two that training needs
    if SQUAD_DIR.exists() and MODEL_DIR.exists() and not args.verify:
        teacher = f" --teacher_dir {as_argument(TEACHER_DIR)}" if "teacher" in folders else ""
        say(f"Next: python train.py{teacher}")


def fetch(missing: dict[str, Path], args: argparse.Namespace) -> None:
    """Gets the parts that are missing, {part: folder}. Raises QAError that says what can be done by hand."""
    # before the import: the libraries read their switches then
    prepare_network(args.proxy)
    from extractive_qa.hub.retries import FetchError
    from extractive_qa.hub.sources import ways_out

    # one part after the other: the data are complete, and stay, whatever becomes of the model
    patience = Patience(args.timeout, args.retries)
    options = DownloadOptions(args.endpoint, args.json_url, args.source, args.revision, patience, progress)
    for part, folder in list(missing.items()):
        try:
            download(part, folder, options)
        except FetchError as error:
            # for a browser, or another machine: the addresses of all that is still missing, not of this part alone
            by_hand = {part: hand_folder(folder) for part, folder in missing.items()}
            raise QAError(f"{error}\n{ways_out(by_hand)}") from error
        del missing[part]
        # the result: read once more, from the disk
        verify(folder, part)


if __name__ == "__main__":
    run(main)
