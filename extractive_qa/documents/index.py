"""A folder of documents that can be asked: its passages and their BM25 index, kept beside a list of the files, so that
what has not changed is not read again."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from extractive_qa.documents.passages import cut_passages, words_of
from extractive_qa.documents.reading import KINDS, read_document
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import replace_folder
from extractive_qa.files.locks import locked
from extractive_qa.files.manifest import sha256_of
from extractive_qa.files.reading import read_json_object
from extractive_qa.progress import NoProgress

FORMAT = 1  # of what is kept: raise it when passages are cut or found in another way
LIST, PASSAGES, OFFSETS, BM25 = "index.json", "passages.jsonl", "offsets.npy", "bm25"
EXPECTED = "an index of documents"


class DocumentIndex:
    """The passages of a folder's documents, brought up to date when it is opened.

    folder: of documents, with all folders in it; links that lead out of it are not followed. kept_in: the folder that
    indexes are kept in. progress: called like tqdm. Files that can't be read are left out: `skipped` has their names,
    relative to the folder, and the reasons; `read` how many were read now, `files` how many there are.

    Raises QAError where there is no such folder, or no document in it that can be read.
    """

    def __init__(self, folder: str | Path, kept_in: Path, progress: Callable = NoProgress):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise QAError(f"{folder} is no folder. Expected one with documents: {', '.join(KINDS)}.")
        name = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]
        self.kept = kept_in / f"documents-{name}"
        kept_in.mkdir(parents=True, exist_ok=True)
        with locked(kept_in / f"documents-{name}.lock", "another process", self.kept, "--documents"):
            self.bring_up_to_date(progress)
        self.offsets = np.load(self.kept / OFFSETS, mmap_mode="r")
        self.retriever = self.load_retriever()

    # ---- what there is

    def bring_up_to_date(self, progress: Callable) -> None:
        """Reads what is new or changed, and writes the index where anything is."""
        earlier = self.earlier_files()
        files, self.skipped, self.read = {}, {}, 0
        changed = {}  # name: its passages
        paths = sorted(self.paths())
        with progress(desc="reading documents", total=len(paths), unit=" files", leave=False) as bar:
            for path in paths:
                name, status = path.relative_to(self.folder).as_posix(), path.stat()
                seen = {"size": status.st_size, "time": status.st_mtime_ns}
                known = earlier.get(name, {})
                if {key: known.get(key) for key in seen} != seen:
                    seen["sha256"] = sha256_of(path)
                    if known.get("sha256") == seen["sha256"]:  # touched, or copied again
                        known = known | seen
                    else:
                        known, self.read = self.read_file(path, seen, changed, name), self.read + 1
                files[name] = known
                if "skipped" in known:
                    self.skipped[name] = known["skipped"]
                bar.update()
        self.files = len(files) - len(self.skipped)
        if not self.files:
            listed = "".join(f"\n  {name}: {reason}" for name, reason in list(self.skipped.items())[:5])
            raise QAError(f"{self.folder} holds no document that can be read. Expected {', '.join(KINDS)}.{listed}")
        if files != earlier:
            replace_folder(self.kept, lambda new: self.write(new, files, changed, progress))

    def paths(self) -> Iterator[Path]:
        """The documents in the folder, by their endings. Hidden ones are left out, and what a link leads out to."""
        root = self.folder.resolve()
        for folder, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(folder, name)
                is_document = path.suffix.lower() in KINDS and not name.startswith((".", "~$"))
                if is_document and path.is_file() and path.resolve().is_relative_to(root):
                    yield path

    def read_file(self, path: Path, seen: dict, changed: dict, name: str) -> dict:
        """What the list says of a file, whose passages go to `changed`."""
        try:
            passages = [
                {"text": text[start:end], "file": name, "page": page, "line": text.count("\n", 0, start) + 1}
                for page, text in read_document(path)
                for start, end in cut_passages(text)
            ]
        except QAError as error:
            return seen | {"skipped": str(error)}
        except OSError as error:
            return seen | {"skipped": error.strerror or str(error)}
        changed[name] = passages
        return seen | {"passages": len(passages)}

    def earlier_files(self) -> dict:
        """The list of the index that is kept, {} where there is none of this format or it is damaged."""
        try:
            kept = read_json_object(self.kept / LIST, EXPECTED)
            return kept["files"] if kept["format"] == FORMAT and kept["whole"] else {}
        except (QAError, LookupError):
            return {}

    # ---- what is kept

    def write(self, new: Path, files: dict, changed: dict, progress: Callable) -> None:
        """Writes the index to the folder `new`: passages in the order of `files`, those of unchanged files as they were
        kept, and BM25 over all."""
        import bm25s

        kept = self.kept_passages() if self.kept.exists() else {}
        offsets, terms, place = [], [], 0
        with (new / PASSAGES).open("wb") as file:
            for name in progress(files, desc="indexing", unit=" files", leave=False):
                new_ones = [json.dumps(passage, ensure_ascii=False) for passage in changed.get(name, [])]
                for line in new_ones if name in changed else kept.get(name, []):
                    encoded = line.encode("utf-8", "surrogatepass") + b"\n"
                    file.write(encoded)
                    offsets.append(place)
                    place += len(encoded)
                    terms.append(words_of(json.loads(line)["text"]))
        np.save(new / OFFSETS, np.array([*offsets, place], dtype=np.int64))
        retriever = bm25s.BM25(k1=1.2, b=0.5)
        retriever.index(terms, show_progress=False)
        retriever.save(new / BM25)
        (new / LIST).write_text(json.dumps({"format": FORMAT, "whole": True, "files": files}), encoding="utf-8")

    def kept_passages(self) -> dict[str, list[str]]:
        """{file: its passages, as lines of JSON} of the index that is kept."""
        found: dict[str, list[str]] = {}
        with (self.kept / PASSAGES).open(encoding="utf-8", errors="surrogatepass", newline="\n") as file:
            for line in file:
                found.setdefault(json.loads(line)["file"], []).append(line.rstrip("\n"))
        return found

    def load_retriever(self):
        import bm25s

        return bm25s.BM25.load(self.kept / BM25, mmap=True)

    # ---- what is asked

    def __len__(self) -> int:
        """How many passages there are."""
        return len(self.offsets) - 1

    def best(self, question: str, count: int = 10) -> list[dict]:
        """The up to `count` best passages for a question by BM25, best first: text, file (relative to the folder), page
        (None where the kind has none), line (of the page, or file). Where none shares a word with it, []."""
        terms = words_of(question)
        known = [term for term in terms if term in self.retriever.vocab_dict]
        if not known:
            return []
        scores = self.retriever.get_scores(known)
        least = np.partition(scores, -count)[-count] if count < len(scores) else 0.0
        best = np.flatnonzero((scores >= least) & (scores > 0))
        return [self.passage(int(number)) for number in best[np.argsort(-scores[best], kind="stable")][:count]]

    def passage(self, number: int) -> dict:
        start, end = (int(place) for place in self.offsets[number : number + 2])
        with (self.kept / PASSAGES).open("rb") as file:
            file.seek(start)
            return json.loads(file.read(end - start).decode("utf-8", "surrogatepass"))
