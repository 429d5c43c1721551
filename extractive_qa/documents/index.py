"""A folder of documents that can be asked: its passages and their BM25 index, kept beside a list of the files, so that
what has not changed is not read again."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from extractive_qa.documents.passages import cut_passages, join_overlapping, words_of
from extractive_qa.documents.reading import KINDS, read_document
from extractive_qa.errors import QAError, brief
from extractive_qa.files.atomic import replace_folder
from extractive_qa.files.locks import locked
from extractive_qa.files.manifest import sha256_of
from extractive_qa.files.reading import read_json_object
from extractive_qa.progress import NoProgress
from extractive_qa.text import replace_surrogates

FORMAT = 3  # of what is kept: raise it when passages are cut or found in another way
LIST, PASSAGES, OFFSETS, BM25 = "index.json", "passages.jsonl", "offsets.npy", "bm25"
TERMS, TERM_SPLITS, VOCABULARY = "terms.npy", "term_splits.npy", "vocabulary.json"
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
            try:
                self.bring_up_to_date(progress)
                self.offsets = np.load(self.kept / OFFSETS, mmap_mode="r")
                # as the offsets it stays what it is where another process brings the index up to date
                self.passages = np.memmap(self.kept / PASSAGES, mode="r")
                self.retriever = self.load_retriever()
            except (ValueError, LookupError, EOFError, FileNotFoundError) as error:  # of damaged or missing files
                raise QAError(f"{self.kept} is damaged ({brief(error)}). Delete it: it is made again.") from None

    # ---- what there is

    def bring_up_to_date(self, progress: Callable) -> None:
        """Reads what is new or changed, and writes the index where anything is."""
        earlier = self.earlier_files()
        files, self.skipped, self.read = {}, {}, 0
        changed = {}  # name: its passages
        paths = sorted(self.paths())
        with progress(desc="reading documents", total=len(paths), unit=" files", leave=False) as bar:
            for path in paths:
                name = path.relative_to(self.folder).as_posix()
                try:
                    files[name] = known = self.look_at(path, name, earlier.get(name, {}), changed)
                except OSError as error:  # also of a file that has gone meanwhile: it is tried again the next time
                    files[name] = known = {"skipped": error.strerror or str(error)}
                if "skipped" in known:
                    self.skipped[name] = known["skipped"]
                bar.update()
        self.files = len(files) - len(self.skipped)
        if not self.files:
            listed = "".join(f"\n  {name}: {reason}" for name, reason in list(self.skipped.items())[:5])
            raise QAError(f"{self.folder} holds no document that can be read. Expected {', '.join(KINDS)}.{listed}")
        if files != earlier:
            kept = self.kept_passages() if earlier else ({}, {})
            replace_folder(self.kept, lambda new: self.write(new, files, changed, *kept, progress))

    def look_at(self, path: Path, name: str, known: dict, changed: dict) -> dict:
        """What the list says of a file, of which it said `known`; where it has changed, its passages go to `changed`.
        Raises OSError."""
        status = path.stat()
        seen = {"size": status.st_size, "time": status.st_mtime_ns}
        if {key: known.get(key) for key in seen} == seen:
            return known
        seen["sha256"] = sha256_of(path)
        if known.get("sha256") == seen["sha256"]:  # touched, or copied again
            return known | seen
        self.read += 1
        return self.read_file(path, seen, changed, name)

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
        """What the list says of a file, whose passages go to `changed`. Raises OSError."""
        passages, shown = [], replace_surrogates(name)  # of names that are no UTF-8
        try:
            for page, text in read_document(path):
                line, before = 1, 0
                for start, end in cut_passages(text):
                    line, before = line + text.count("\n", before, start), start
                    passages.append(
                        {"text": text[start:end], "file": shown, "page": page, "line": line, "start": start}
                    )
        except QAError as error:
            return seen | {"skipped": str(error)}
        changed[name] = passages
        return seen | {"passages": len(passages)}

    def earlier_files(self) -> dict:
        """The list of the index that is kept, {} where there is none of this format or it is damaged."""
        try:
            kept = read_json_object(self.kept / LIST, EXPECTED)
            return kept["files"] if kept["format"] == FORMAT else {}
        except (QAError, LookupError):
            return {}

    # ---- what is kept

    def write(
        self, new: Path, files: dict, changed: dict, kept: dict, vocabulary: dict[str, int], progress: Callable
    ) -> None:
        """Writes the index to the folder `new`: passages and their terms in the order of `files`, those of unchanged
        files as they were kept, and BM25 over all. kept, vocabulary: as kept_passages gives them."""
        lengths, terms = [], []  # bytes of each passage, and its terms as numbers, int32
        with (new / PASSAGES).open("wb") as file:
            for name in progress(files, desc="indexing", unit=" files", leave=False):
                if name in changed:
                    lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in changed[name]]
                    encoded = [line.encode() for line in lines]
                    words = (words_of(one["text"]) for one in changed[name])
                    numbers = [[vocabulary.setdefault(word, len(vocabulary)) for word in some] for some in words]
                else:
                    encoded, numbers = kept.get(name, ([], []))
                file.writelines(encoded)
                lengths += map(len, encoded)
                terms += [np.asarray(some, dtype=np.int32) for some in numbers]
        np.save(new / OFFSETS, np.cumsum([0, *lengths]))
        np.save(new / TERMS, np.concatenate([np.zeros(0, dtype=np.int32), *terms]))
        np.save(new / TERM_SPLITS, np.cumsum([0, *map(len, terms)]))
        (new / VOCABULARY).write_text(json.dumps(list(vocabulary)), encoding="utf-8")
        make_retriever([some.tolist() for some in terms], vocabulary).save(new / BM25)
        (new / LIST).write_text(json.dumps({"format": FORMAT, "files": files}), encoding="utf-8")

    def kept_passages(self) -> tuple[dict, dict[str, int]]:
        """{file: its passages as lines of JSON, and their terms as numbers} of the index that is kept, and the
        vocabulary {term: its number}."""
        offsets, splits, terms = (np.load(self.kept / name) for name in (OFFSETS, TERM_SPLITS, TERMS))
        words = json.loads((self.kept / VOCABULARY).read_text(encoding="utf-8"))
        found, number = {}, 0
        with (self.kept / PASSAGES).open("rb") as file:
            for name, known in self.earlier_files().items():
                some = range(number, number := number + known.get("passages", 0))
                lines = [file.read(int(offsets[i + 1] - offsets[i])) for i in some]
                found[name] = lines, [terms[splits[i] : splits[i + 1]] for i in some]
        return found, {word: place for place, word in enumerate(words)}

    def load_retriever(self):
        import bm25s

        return bm25s.BM25.load(self.kept / BM25, mmap=True)

    # ---- what is asked

    def sha256(self) -> str:
        """Of all passages, and of the way they are found: what `best` gives depends on this alone."""
        digest = hashlib.sha256(self.passages)
        digest.update(str(FORMAT).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        """How many passages there are."""
        return len(self.offsets) - 1

    def best(self, question: str, count: int = 10) -> list[dict]:
        """The up to `count` best passages for a question by BM25, best first: text, file (relative to the folder), page
        (None where the kind has none), line and start, in characters (of the page, or of the file's text). Those that
        overlap come as one. Where none shares a word with the question, []."""
        found = [self.passage(number) for number in best_numbers(self.retriever, question, count)]
        return join_overlapping(found, ("file", "page"))

    def answers(
        self, reader, questions: Sequence[str], passages: int = 10, top_k: int = 1, min_confidence: float = 0.0,
        each_batch: Callable[[int, int, int], object] = lambda done, windows, questions: None,
    ) -> list[list[dict]]:  # fmt: skip
        """The best answers that a Reader finds to each question in up to `passages` passages, as answer_documents gives
        them, each with its `document`: file, page, line on which the answer begins, start, where the passage begins,
        and text, the passage, whose characters start and end of an answer count. Where no passage shares a word with
        the question: one without text, whose document is None."""
        found = [self.best(question, passages) or [""] for question in questions]
        best = reader.answer_documents(questions, found, top_k, min_confidence, ranked=True, each_batch=each_batch)
        best = best if top_k > 1 else [[answer] for answer in best]
        for answer in (answer for answers in best for answer in answers if answer["document"]):
            line = answer["document"]["line"] + answer["document"]["text"].count("\n", 0, answer["start"])
            answer["document"] = answer["document"] | {"line": line}
        return best

    def passage(self, number: int) -> dict:
        start, end = self.offsets[number : number + 2]
        return json.loads(self.passages[start:end].tobytes())


def best_passages(question: str, texts: Sequence[str], count: int = 10) -> list[dict]:
    """The up to `count` best passages of some texts for a question by BM25, best first: text, document (the number of
    its text), start (in characters of that). Those that overlap come as one."""
    passages = [
        {"text": text[start:end], "document": number, "start": start}
        for number, text in enumerate(texts)
        for start, end in cut_passages(text)
    ]
    vocabulary: dict[str, int] = {}
    terms = [[vocabulary.setdefault(word, len(vocabulary)) for word in words_of(one["text"])] for one in passages]
    found = [passages[number] for number in best_numbers(make_retriever(terms, vocabulary), question, count)]
    return join_overlapping(found, ("document",))


def make_retriever(terms: list[list[int]], vocabulary: dict[str, int]):
    """BM25 over the terms of each passage, as numbers of the vocabulary."""
    import bm25s

    retriever = bm25s.BM25(k1=0.9, b=0.8)
    retriever.index(bm25s.tokenization.Tokenized(ids=terms, vocab=vocabulary), show_progress=False)
    return retriever


def best_numbers(retriever, question: str, count: int) -> list[int]:
    """The numbers of the up to `count` best passages that share a word with the question, best first."""
    known = [term for term in words_of(question) if term in retriever.vocab_dict]
    return best_first(retriever.get_scores(known), count).tolist() if known else []


def best_first(scores: np.ndarray, most: int) -> np.ndarray:
    """The numbers of up to `most` of the scores above 0, best first, equal ones in their order, which the library's own
    choice leaves to the processor. scores: float (N,)."""
    least = np.partition(scores, -most)[-most] if most < len(scores) else 0.0
    best = np.flatnonzero((scores >= least) & (scores > 0))
    return best[np.argsort(-scores[best], kind="stable")][:most]
