"""Many files of questions: each is a shard, with answers, lock and progress of its own as a single file has them."""

import glob
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from extractive_qa.batch.answer_file import done_path, lock_path, paths_beside, progress_path
from extractive_qa.data.formats import FORMATS, check_path
from extractive_qa.data.names import ANSWER_KINDS
from extractive_qa.errors import QAError
from extractive_qa.text import printable, shown

logger = logging.getLogger(__name__)


class Shard(NamedTuple):
    source: Path
    target: Path


class Outcome(NamedTuple):
    """Of a shard: its answers and bad records, how many answers are of now, and why it could not be answered, "" where
    it was. in_use: another process has it."""

    shard: Shard
    answers: int = 0
    bad: int = 0
    now: int = 0
    fault: str = ""
    in_use: bool = False


def choose_shards(
    inputs: list[str], output: str, kind: str = ANSWER_KINDS[0], workers: int | None = None, on_ray: bool = False
) -> list[Shard] | None:
    """The shards that --input and --output, as they are typed, mean; None where they are one file of questions, or a
    pipe, and one of answers. kind, workers, on_ray: the flags that only shards have. Raises QAError as find_shards."""
    one = Path(inputs[0])
    is_pattern = glob.has_magic(inputs[0]) and not one.exists()
    to_folder = output[-1:] in ("/", "\\") or Path(output).is_dir()
    if len(inputs) > 1 or is_pattern or is_plain_folder(one) or to_folder:
        if "-" in (*inputs, output):
            raise QAError("- is one stream. Expected files as --input and a folder as --output, or one of each.")
        return find_shards(inputs, Path(output), kind)
    if (workers or 1) > 1 or on_ray or kind != ANSWER_KINDS[0]:
        raise QAError(
            f"--workers, --ray and --output_format are for several files. Expected a folder as --output, such as "
            f"{output.rpartition('.')[0] or output}/; one file is a shard too."
        )
    return None


def is_plain_folder(path: Path) -> bool:
    """Whether that is a folder, and not one written by datasets' save_to_disk, which is a file of questions here."""
    listings = ("dataset_dict.json", "state.json", "dataset_info.json")
    return path.is_dir() and not any((path / name).is_file() for name in listings)


def is_known(path: Path) -> bool:
    """Whether that is a file of questions by its ending."""
    try:
        return not is_plain_folder(check_path(path))
    except QAError:
        return False


def find_shards(inputs: Iterable[str], output: Path, kind: str = ANSWER_KINDS[0]) -> list[Shard]:
    """The shards that names of files, folders and patterns (in/*.parquet; ** for all folders below) mean, in order.

    kind: of the answers, one of ANSWER_KINDS. They are called as their file, in the folder `output`; of a pattern, in
    folders as the files do, below the part of the pattern that has no signs. Of a folder its own files are taken.
    Raises QAError where a name means nothing, two shards would write to one file, or one is among the answers.
    """
    if output.exists() and not output.is_dir():
        raise QAError(f"{output} is a file. Expected a folder for the answers to several files.")
    if not output.absolute().parent.is_dir():
        raise QAError(f"{output.absolute().parent} is missing. Expected a folder: make it, or change --output.")
    inside, found, writes = output.resolve(), {}, {}
    for name in inputs:
        root, paths = expand(name, inside)
        for path in paths:
            relative = path.relative_to(root)
            stem = relative.name
            if is_known(path) and not path.is_dir():
                stem = stem[: stem.lower().removesuffix(".gz").rindex(".")]
            found.setdefault(path.resolve(), Shard(path, output / relative.parent / f"{stem}.{kind}"))
    for shard in found.values():
        for path in {shard.target, *paths_beside(shard.target)}:
            other = writes.setdefault(str(path).casefold(), shard.source)
            if other is not shard.source:
                raise QAError(
                    f"{other} and {shard.source} would both write to {path}. Rename one of them, or answer them into "
                    "different folders."
                )
    return list(found.values())


def expand(name: str, output: Path) -> tuple[Path, list[Path]]:
    """The files that a name means, sorted, and the folder below which they are told apart. What is in `output`, the
    resolved folder of answers, is not among those of a folder or a pattern."""
    path = Path(name)
    if not is_plain_folder(path) and (path.exists() or not glob.has_magic(name)):
        if check_path(path).resolve().is_relative_to(output) or output.is_relative_to(path.resolve()):
            raise QAError(f"{path} and {shown(output)}, the folder of answers, are one in the other. Choose another.")
        return path.parent, [path]
    if path.is_dir():
        root, paths = path, [one for one in path.iterdir() if not one.name.startswith((".", "_"))]
        left_out = sorted(one.name for one in paths if not (is_known(one) or one.is_dir()))
        if left_out:
            more = f" and {len(left_out) - 3:,} more" if len(left_out) > 3 else ""
            logger.info(f"left out of {path}, by their endings: {printable(', '.join(left_out[:3]))}{more}")
        paths = list(filter(is_known, paths))
    else:
        paths = [Path(one) for one in glob.glob(name, recursive=True)]  # noqa: PTH207 - Path.glob takes no absolute one
        plain = [not glob.has_magic(part) for part in path.parts]
        root, paths = Path(*path.parts[: plain.index(False)]), [one for one in paths if not is_plain_folder(one)]
    paths = [one for one in paths if not one.resolve().is_relative_to(output)]
    if not paths:
        raise QAError(f"{name}: no file of questions is there, the folder of answers aside. Expected {FORMATS}.")
    return root, sorted(paths)


def is_taken(shard: Shard) -> bool:
    """Whether a shard seems to be complete, or another process has it: the others come first."""
    is_complete = done_path(shard.target).exists() and not progress_path(shard.target).exists()
    return is_complete or lock_path(shard.target).exists()
