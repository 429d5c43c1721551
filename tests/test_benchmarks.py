"""What the benchmarks share, and the table of the comparisons. What they measure is not asserted: times are no
property."""

import json
import platform
import runpy
import sys

import numpy as np
import pytest
from scripts import PROJECT_ROOT, assert_refused, run_script

sys.path.insert(0, str(PROJECT_ROOT / "benchmarks"))

import harness
from harness import (
    PEERS_DIR,
    RESULTS_DIR,
    Peer,
    gemm_peak,
    in_fresh_process,
    parse_args,
    peer_python,
    precisions_of,
    processor_kind,
    put_table,
    rounded,
    summarize,
    take_turns,
)
from table import KINDS, WORK, read_results, table, tables

from extractive_qa.errors import QAError

KEYS = {"benchmark", "ours", "peer", "peer_best", "ratio", "target", "unit", "device", "versions"}
FIGURES = {
    "ours, slow": [10.0, 11.0, 9.0, 10.0, 10.0],
    "ours": [20.0, 30.0, 40.0, 50.0, 60.0],
    "one": [5.0, 10.0, 10.0, 10.0, 5.0],
    "other": [1.0, 2.0, 1.0, 2.0, 1.0],
    "one, tuned": [10.0, 10.0, 20.0, 25.0, 20.0],
}


def result_of(name: str = "answering", **changes) -> dict:
    settings = {
        "ours": ["ours, slow", "ours"], "peers": ["one", "other"], "best_peers": ["one, tuned"], "unit": "questions/s",
        "target": 3.5, "device": "CPU", "versions": {},
    }  # fmt: skip
    return summarize(name, FIGURES, **settings | changes)


def test_the_ratio_is_the_median_of_the_ratios_within_each_turn():
    result = result_of()
    assert result.keys() >= KEYS
    assert (result["ours"], result["peer"], result["peer_best"]) == (40, 10, 20)
    # 20/5, 30/10, 40/10, 50/10, 60/5: not 40/10 by the medians of either side, though here they agree
    assert result["ratio"] == 4
    assert result["ratio_best"] == 2  # 2, 3, 2, 2, 3
    assert result["spread"]["ratio"] == [3, 12]
    assert result["spread"]["ours"] == [20, 60]
    assert result["met"]
    assert not result_of(target=5)["met"]


def test_of_several_sides_the_best_median_counts():
    assert result_of()["sides"] == {"ours": "ours", "peer": "one", "peer_best": "one, tuned"}
    # of times the least
    times = result_of("latency", lower=True, unit="ms", target=0.5)
    assert times["sides"] == {"ours": "ours, slow", "peer": "other", "peer_best": "other"}
    assert times["ratio"] == 9  # 10, 5.5, 9, 5, 10
    assert not times["met"]
    # a peer that is no faster with other settings is at its best as it comes
    assert result_of(best_peers=["other"])["sides"]["peer_best"] == "one"


def test_every_side_runs_once_a_turn_and_none_is_always_first():
    ran = []
    figures, others = take_turns({n: lambda n=n: float(ran.append(n) or len(ran)) for n in ("a", "b", "c")}, 3)
    assert ran == ["a", "b", "c", "c", "b", "a", "a", "b", "c"]
    assert figures == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}
    assert others.keys() == figures.keys()
    assert all(0 <= share <= 1 for share in others.values())
    take_turns({"a": lambda: float(ran.append("a") or 1)}, 1, warm_up=True)
    assert ran[9:] == ["a", "a"]


def test_figures_are_written_with_four_digits():
    assert rounded({"a": [1234.567, 2], "b": {"c": 0.00012345}}) == {"a": [1235.0, 2], "b": {"c": 0.0001234}}


def test_the_table_has_a_line_for_each_result(tmp_path):
    results = [result_of(), result_of("latency", lower=True, unit="ms, p50 (ratio: ours / peer)", target=0.5)]
    lines = table(results).splitlines()
    answering = "| answering, fastest precision (questions/s) | 40.0 | 10.0 | 20.0 | 4.00 | ≥ 3.5 | yes | 2.00 | ours |"
    assert lines[2] == answering
    assert lines[3].endswith("| 9.00 | ≤ 0.5 | no | 9.00 | **peer** |")
    assert len(lines) == 4
    # results are read in the table's order, those that are missing are left out
    for result in reversed(results):
        (tmp_path / f"{result['benchmark']}.json").write_text(json.dumps(result), encoding="utf-8")
    assert [result["benchmark"] for result in read_results(tmp_path)] == ["answering", "latency"]


def test_a_peer_that_is_ahead_at_its_best_is_named(capsys, tmp_path):
    """The target may be met all the same: it is for the peer as it comes."""
    args = parse_args("", [], results_dir=tmp_path)
    faster = FIGURES | {"one, tuned": [80.0] * 5}
    for figures, words in ((FIGURES, "ours is ahead"), (faster, "PEER AHEAD, one, tuned")):
        harness.report(args, figures, {}, {}, "answering", ["ours"], ["one"], ["one, tuned"], "questions/s", 3.5)
        *_, met, ahead, line = capsys.readouterr().out.splitlines()
        assert met.endswith("met")
        assert ahead.endswith(words)
        kept = tmp_path / processor_kind()
        assert json.loads(line) == json.loads((kept / "answering.json").read_text(encoding="utf-8"))
        assert json.loads(line).keys() >= KEYS
    assert table(read_results(kept)).endswith("| yes | 0.50 | **peer** |\n")


@pytest.mark.parametrize(("kind", "has"), [
    ("bf16", {"avx2", "avx512_vnni", "avx512_bf16"}), ("vnni", {"avx2", "avx_vnni"}), ("avx2", {"avx2"}),
    (platform.machine(), set()),
])  # fmt: skip
def test_results_are_kept_by_the_kind_of_processor_and_each_has_its_table(kind, has, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: dict.fromkeys(has, True))
    assert processor_kind() == kind
    harness.report(parse_args("", [], results_dir=tmp_path), FIGURES, {}, {}, "answering", ["ours"], ["one"],
                   ["one, tuned"], "questions/s", 3.5)  # fmt: skip
    assert (tmp_path / kind / "answering.json").is_file()
    made = tables(tmp_path)
    assert (made == "") == (kind not in KINDS)  # another architecture has no table yet
    assert [words in made for words in KINDS.values()] == [kind == name for name in KINDS]


def test_a_table_goes_between_its_markers_and_nothing_else_changes(tmp_path):
    path, begin, end = tmp_path / "README.md", "<!-- x -->\n", "<!-- /x -->"
    path.write_text(f"before\n{begin}old\n{end}\nafter\n", encoding="utf-8")
    assert put_table(path, "x", "new\n", write=False)
    assert put_table(path, "x", "new\n")
    assert path.read_text(encoding="utf-8") == f"before\n{begin}new\n{end}\nafter\n"
    assert not put_table(path, "x", "new\n")
    for broken in ("no markers", f"{end}{begin}", f"{begin}{end}{begin}{end}"):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(QAError, match=r"README\.md"):
            put_table(path, "x", "new\n")


def test_a_table_that_is_not_that_of_the_results_is_refused(tmp_path):
    (tmp_path / "avx2").mkdir()
    (tmp_path / "avx2" / "answering.json").write_text(json.dumps(result_of()), encoding="utf-8")
    page, empty = tmp_path / "page.md", "<!-- benchmarks -->\n<!-- /benchmarks -->\n"
    page.write_text(empty, encoding="utf-8")
    places = "--results_dir", tmp_path, "--page", page
    assert_refused(run_script("benchmarks/table.py", "--check", *places, code=2), "page.md", "table.py")
    assert page.read_text(encoding="utf-8") == empty
    run_script("benchmarks/table.py", *places)
    run_script("benchmarks/table.py", "--check", *places)


def test_the_page_has_the_table_of_the_results():
    run_script("benchmarks/table.py", "--check")


def test_results_have_their_keys_and_no_absolute_path():
    for result in (result for kind in KINDS for result in read_results(RESULTS_DIR / kind)):
        assert result.keys() >= KEYS, result["benchmark"]
        assert result["pairs"] >= 5
    for path in RESULTS_DIR.rglob("*.json"):
        assert str(PROJECT_ROOT.parent) not in path.read_text(encoding="utf-8"), path.name
    kept = {path.stem for kind in KINDS for path in (RESULTS_DIR / kind).glob("*.json")}
    assert {name.replace("documents_5", "documents") for name in kept} <= WORK.keys()


@pytest.mark.parametrize("n_best", [1, 3])
def test_the_peers_of_spans_keep_as_many_answers_as_ours(n_best, tmp_path):
    try:
        peer_python()
    except QAError as error:
        pytest.skip(f"no peers are beside us: {error}")
    context = "".join(map(str, range(10)))
    offsets = np.array([[-1, -1], *([i, i + 1] for i in range(10))] * 2)  # two questions, [CLS] and a token a character
    logits = np.random.default_rng(0).normal(size=(2, 22)).astype(np.float32)
    np.savez(tmp_path / "logits.npz", start=logits[0], end=logits[1], lengths=[11, 11], offsets=offsets,
             example_index=[0, 1], contexts=[context] * 2)  # fmt: skip
    spans = set()
    with Peer("spans", tmp_path / "logits.npz", 5) as peer:
        for way in ("dataset", "lists"):
            assert peer("decode", way=way, n_best=n_best)["answers"] == 2 * n_best, way
            spans.add(str(peer("best")["spans"]))
    assert len(spans) == 1  # all of them look at every start and end


def test_no_peer_imports_this_project():
    """They run in an environment of their own, where our evaluate.py would hide the library of that name."""
    for path in PEERS_DIR.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import utils" not in text, path.name
        assert "from utils" not in text, path.name


def test_nothing_is_measured_in_bf16_where_the_processor_has_none(monkeypatch):
    monkeypatch.setattr("extractive_qa.model.devices.has_bf16", lambda device: False)
    assert precisions_of("cpu") == ["fp32"]
    assert gemm_peak(size=8, repeats=1).keys() == {"no"}
    answering = runpy.run_path(str(PROJECT_ROOT / "benchmarks" / "speed" / "answering.py"))
    ways = answering["ways_to_answer"](PROJECT_ROOT / "models" / "sample")
    assert not any("bf16" in text for name, way in ways.items() for text in (name, *way))


def test_flags_take_the_kind_of_their_default():
    args = parse_args(
        "", ["--many", "3", "4", "--on", "--model_dir", "x"], many=([1], ""), on=(False, ""), model_dir=None
    )
    assert (args.many, args.on, args.model_dir.name) == ([3, 4], True, "x")
    args = parse_args("", [], many=([1], ""), on=(False, ""), model_dir=None, pairs=5)
    assert (args.many, args.on, args.model_dir, args.pairs) == ([1], False, None, 5)


def test_a_part_that_fails_in_a_fresh_process_is_named(tmp_path):
    script = tmp_path / "part.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(PROJECT_ROOT / 'benchmarks')!r}); import harness\n"
        "harness.start(None, lambda value: {'doubled': 2 * value})",
        encoding="utf-8",
    )
    assert in_fresh_process(str(script), value=4) == {"doubled": 8}
    with pytest.raises(QAError, match=r"part\.py.*ended with exit code 1"):
        in_fresh_process(str(script), value=None)
