"""Where the files come from: the Hub or a mirror of it, the original JSON files, or what was put there by hand."""

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import cannot_write
from extractive_qa.hub.fetch import CONNECT_TIMEOUT, RemoteFile, fetch, matches
from extractive_qa.hub.options import HUB, JSON_URL, DownloadOptions, Patience, without_password
from extractive_qa.hub.retries import FetchError, hub_errors, with_retries

logger = logging.getLogger(__name__)

DATA_REPO = "rajpurkar/squad"
ROWS = {"train": 87_599, "validation": 10_570}  # questions of SQuAD 1.1
PARQUET_FILES = [f"plain_text/{split}-00000-of-00001.parquet" for split in ROWS]
# the original files and what they must be: bytes, sha256
JSON_FILES = {
    "train-v1.1.json": (30_288_272, "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"),
    "dev-v1.1.json": (4_854_279, "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9"),
}
MODEL_REPOS = {
    "model": "google/mobilebert-uncased",
    "teacher": "google-bert/bert-large-uncased-whole-word-masking-finetuned-squad",
}
# all that is needed of a model's repository; the last only where there are no safetensors
MODEL_FILES = ["config.json", "vocab.txt", "tokenizer.json", "model.safetensors", "pytorch_model.bin"]
OPTIONAL_FILES = {"tokenizer.json", "model.safetensors"}
BY_HAND = "files that were put there by hand"


@dataclass(frozen=True)
class Source:
    """A place that has files.

    name: for people, without a login. files: their names there. find(name, revision) gives a RemoteFile; revision None:
    the one that the user asked for. It raises FileNotFoundError where there is no such file.
    """

    name: str
    files: list[str]
    find: Callable[[str, str | None], RemoteFile]


@dataclass(frozen=True)
class Fetched:
    """Files that are here: {name at the source: path}, the source's name, and the revision (None: unknown)."""

    files: dict[str, Path]
    source: str
    revision: str | None


def get_files(part: str, by_hand: Path, arrived: Path, options: DownloadOptions) -> Fetched:
    """Gets the files of "data" (train first), or of one of MODEL_REPOS: those in the folder `by_hand` are taken from
    there, the others are downloaded into the folder `arrived`, which a later call resumes.

    Raises FetchError where no source has them, QAError where a file that was put there by hand is another one, or the
    disk can't be written.
    """
    sources = _data_sources(by_hand, options) if part == "data" else [_model_source(part, by_hand, options)]
    failures = []
    for source in sources:
        if failures:
            logger.warning(f"{failures[-1]}. Using the original JSON files instead")
        logger.info(f"{part}: {source.name}")
        try:
            return _get_all(source, by_hand, arrived, options)
        except FetchError as error:
            failures.append(str(error))
        except OSError as error:
            raise cannot_write(Path(error.filename or arrived), error, "run the same command again") from error
    raise FetchError("\n".join(failures))


def _data_sources(by_hand: Path, options: DownloadOptions) -> list[Source]:
    """Where SQuAD may come from, in the order in which it is tried."""
    hub = _hub_source(DATA_REPO, "dataset", PARQUET_FILES, options)
    original = Source(
        without_password(options.json_url),
        list(JSON_FILES),
        lambda name, _: RemoteFile(f"{options.json_url}/{name}", *JSON_FILES[name], revision="v1.1"),
    )
    sources = [hub, original]
    if options.source or options.revision != "main":
        sources = [original if options.source == "json" else hub]  # asked for: the other is no substitute
    for source in sources:
        if all((by_hand / Path(name).name).is_file() for name in source.files):
            # the JSON files' checksums are known; of Parquet files without the Hub, only how many rows they must have
            return [Source(BY_HAND, source.files, original.find if source is original else _find_by_hand)]
    return sources


def _model_source(part: str, by_hand: Path, options: DownloadOptions) -> Source:
    placed = {name for name in MODEL_FILES if (by_hand / name).is_file()}
    weights = placed & {"model.safetensors", "pytorch_model.bin"}
    if weights and {"config.json", "vocab.txt"} <= placed:
        return Source(BY_HAND, [name for name in MODEL_FILES if name in placed], _find_by_hand)
    # weights that were put there by hand decide in which form they are looked for
    names = [name for name in MODEL_FILES if weights != {"pytorch_model.bin"} or name != "model.safetensors"]
    return _hub_source(MODEL_REPOS[part], "model", names, options)


def _hub_source(repo: str, repo_type: str, names: list[str], options: DownloadOptions) -> Source:
    address = f"{options.endpoint}/{'datasets/' if repo_type == 'dataset' else ''}{repo}"
    return Source(without_password(address), names, partial(_find_on_hub, repo, repo_type, options))


def _get_all(source: Source, by_hand: Path, arrived: Path, options: DownloadOptions) -> Fetched:
    files, revision = {}, None
    for name in source.files:
        if name == "pytorch_model.bin" and "model.safetensors" in files:
            continue  # one file of weights is enough
        try:
            remote = source.find(name, revision)
        except FileNotFoundError as error:
            if name in OPTIONAL_FILES:
                continue
            raise FetchError(str(error)) from error
        revision = remote.revision  # a commit: the other files are taken from the same one
        placed = by_hand / Path(name).name
        if placed.is_file():
            _check_by_hand(placed, remote)
            files[name] = placed
        else:
            files[name] = arrived / placed.name
            fetch(remote, files[name], options.patience, options.progress)
    return Fetched(files, source.name, revision)


def _check_by_hand(path: Path, remote: RemoteFile) -> None:
    """Raises QAError where a file that was put there by hand can't be read or is not `remote`."""
    try:
        with path.open("rb"):  # where nothing is known of it, `matches` doesn't
            right = matches(path, remote)
    except OSError as error:
        raise QAError(
            f"{path} can't be read: {error.strerror}. Make it readable, then run: python download_data.py"
        ) from error
    if not right:
        raise QAError(
            f"{path} has {path.stat().st_size:,} bytes and is not the file at {without_password(remote.url)}. "
            f"Expected {remote}. Get it again or delete it, then run: python download_data.py"
        )


def _find_by_hand(name: str, _: str | None) -> RemoteFile:
    """Nothing is known of files that were all put there by hand but their names."""
    return RemoteFile(name, None, "")


def _find_on_hub(repo: str, repo_type: str, options: DownloadOptions, name: str, revision: str | None) -> RemoteFile:
    """Asks the Hub, or a mirror of it, for one file of a repository. No token is ever sent.

    repo_type: "model" or "dataset". Raises FileNotFoundError where the server answers that there is no such file,
    FetchError where it can't be asked or doesn't answer like a Hub.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    address = partial(hf_hub_url, repo, name, repo_type=repo_type, endpoint=options.endpoint)
    url = address(revision=revision or options.revision)
    # clients from before this switch (huggingface_hub 0.36) try some faults again by themselves
    own = "retry_on_errors" not in inspect.signature(get_hf_file_metadata).parameters
    timeout, retries = options.patience.timeout, options.patience.retries
    patience = Patience(min(timeout, CONNECT_TIMEOUT), min(retries, 1) if own else retries)

    def attempt():
        try:
            return get_hf_file_metadata(url, token=False, timeout=patience.timeout, endpoint=options.endpoint)
        except hub_errors() as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 404 and not isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError)):
                raise FileNotFoundError(f"{urlsplit(url).hostname}: HTTP 404 Not Found for {url}") from error
            raise

    found = with_retries(attempt, url, patience)
    if not found.commit_hash or not found.etag:
        raise FetchError(
            f"{urlsplit(url).hostname} doesn't answer like the Hub: {url} came without the headers X-Repo-Commit and "
            "ETag, as a web page does. Expected the Hub or a mirror of it"
        )
    # the address that redirects, not its target: the target is signed and expires, maybe before the last attempt
    return RemoteFile(address(revision=found.commit_hash), found.size, found.etag, found.commit_hash)


def ways_out(missing: dict[str, Path]) -> str:
    """What to do when a download fails for good, with the address of every file that is not here yet.

    missing: {"data" or one of MODEL_REPOS: the folder into which its files can be put by hand}.
    """
    lines = [
        "Three ways out:",
        "  1. a mirror of the Hub:  python download_data.py --endpoint https://hf-mirror.com",
        "  2. a proxy:              python download_data.py --proxy http://127.0.0.1:7890",
        "  3. by hand: get these files with a browser or on another machine, then run python download_data.py",
    ]
    urls = {"data": [f"{JSON_URL}/{name}" for name in JSON_FILES]}
    for part, other in (("model", "model.safetensors"), ("teacher", "pytorch_model.bin")):  # published as either
        names = [name for name in MODEL_FILES if name != other]
        urls[part] = [f"{HUB}/{MODEL_REPOS[part]}/resolve/main/{name}" for name in names]
    for part, folder in missing.items():
        lines += [f"     into {folder}", *(f"       {url}" for url in urls[part])]
    lines.append(
        f"     Where {urlsplit(HUB).hostname} can't be reached, hf-mirror.com has the same files at the same paths."
    )
    return "\n".join([*lines, "Partial downloads are kept: the same command resumes them."])
