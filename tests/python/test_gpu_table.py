"""The table of bench/gpu: what it measures first, its bound and shares, and how peers that fail are ended."""

import argparse
import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "bench" / "gpu"))

import model as models  # noqa: E402
import ours  # noqa: E402
import ranks  # noqa: E402
import table  # noqa: E402
import trace_summary  # noqa: E402
from rows import Results, Row, planned  # noqa: E402


def options_of(**given) -> argparse.Namespace:
    return argparse.Namespace(**{"device": "cuda", "gpus": 2, "workers": 2, "sizes": ["small", "mid"], "chunks": [8, 32],
                                 "checkpoint": ["never"], "capture": ["auto", "never"], "only": None, "skip": 2,
                                 "out": None, "seconds": 100.0, **given})


def results_of(options: argparse.Namespace, times: dict[Row, float]) -> Results:
    """The first steps are slower."""
    results = Results(options, "NVIDIA H200")
    for row, seconds in times.items():
        steps = [9.0] * options.skip + [seconds] * 3
        results.add(row, {"step_seconds": steps, "optimizer_seconds": 0.004}, 10.0)
    return results


def test_each_size_gets_its_verdict_before_other_settings_and_small_before_mid():
    rows = planned(options_of())
    assert len(rows) == len(set(rows))
    first_of_never = rows.index(Row("ours", "never", "small", 8))
    assert rows[0] == Row("alone", "graph", "small", 8)
    assert rows.index(Row("ours", "auto", "small", 32)) < rows.index(Row("peer", "1f1b", "mid", 8))
    assert rows.index(Row("ours", "auto", "mid", 32)) < first_of_never < rows.index(Row("alone", "compiled", "small", 8))


def test_one_gpu_is_compared_with_pytorch_at_each_number_of_chunks():
    rows = planned(options_of(gpus=1, workers=1, chunks=[1, 8], sizes=["mid"]))
    assert {(r.kind, r.mode, r.chunks) for r in rows if r.kind != "ours" and "compiled" not in r.mode} == {
        ("alone", mode, chunks) for mode in ("graph", "eager") for chunks in (1, 8)}


def test_the_bound_is_of_the_captured_gpu_with_bubble_and_optimizer():
    alone, ours = Row("alone", "graph", "small", 8), Row("ours", "auto", "small", 32)
    results = results_of(options_of(), {alone: 0.084, ours: 0.200, Row("peer", "gpipe", "small", 32): 0.5})
    line = results.line(ours)
    assert line["bound_seconds"] == pytest.approx(0.010 / 2 * 33 + 0.004 / 2)
    assert line["share"] == pytest.approx(0.167 / 0.200)
    assert line["times_best_peer"] == pytest.approx(2.5)
    again = Row("ours", "auto", "small", 32, "always")
    assert results.bound(again) == pytest.approx(0.010 * 4 / 3 / 2 * 33 + 0.004 / 2)


def test_on_one_gpu_the_bound_is_the_graph_itself():
    options = options_of(gpus=1, workers=1, chunks=[1, 8])
    times = {Row("alone", "graph", "mid", 1): 0.02, Row("alone", "graph", "mid", 8): 0.13,
             Row("alone", "eager", "mid", 8): 0.4, Row("ours", "auto", "mid", 8): 0.13}
    line = results_of(options, times).line(Row("ours", "auto", "mid", 8))
    assert line["bound_seconds"] == pytest.approx(0.13)
    assert line["times_best_peer"] == pytest.approx(0.4 / 0.13)


def test_rows_that_train_something_else_show_in_the_losses():
    results = results_of(options_of(), {})
    for mode, loss in (("auto", 2.0), ("never", 2.02)):
        results.add(Row("ours", mode, "mid", 8), {"step_seconds": [0.1] * 3, "losses": [3.0, 2.5, loss]}, 10.0)
    assert results.loss_difference("mid", 8) == pytest.approx(0.01)
    assert results.loss_difference("mid", 32) is None


def test_mfu_counts_products_and_half_of_attention():
    row = Row("alone", "graph", "mid", 8)
    line = results_of(options_of(), {row: 0.195}).line(row)
    assert line["tokens_per_second"] == pytest.approx(8 * 1024 / 0.195)
    assert line["mfu"] == pytest.approx(0.344, abs=0.001)


def test_rows_begin_only_while_the_time_suffices(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "versions", dict)
    bench = table.Bench(options_of(seconds=25.0), tmp_path)
    monkeypatch.setattr(bench, "measure", lambda row, seconds: {"step_seconds": [0.1] * 5, "optimizer_seconds": 0.0})
    small, mid = Row("ours", "auto", "small", 8), Row("ours", "auto", "mid", 8)
    for row in (small, mid):
        bench.run_row(row, {"small", "mid"})
    assert (list(bench.results.found), bench.left_out) == ([small], [mid])


@pytest.mark.parametrize("size", ["small", "mid", "big"])
@pytest.mark.parametrize("stages", [1, 2, 4, 8])
def test_a_cut_has_all_layers_and_no_stage_before_the_last_is_empty(size, stages):
    cut = models.even_cut(models.SIZES[size], stages)
    assert len(cut) == stages
    assert sum(cut) == models.SIZES[size].layers
    assert all(cut[:-1])


def test_a_rank_that_does_not_answer_is_ended_in_time(tmp_path):
    group = ranks.Ranks(1, 0, tmp_path)
    with pytest.raises(ranks.Failed, match="no answer in time"):
        group.ask({"kind": "alone"}, 0.01)
    assert group.processes == []


def test_a_rank_that_fails_says_why(tmp_path):
    group = ranks.Ranks(1, 0, tmp_path)
    with pytest.raises(ranks.Failed, match="rank 0: KeyError: 'size'"):
        group.ask({"kind": "alone"}, 60)
    assert group.processes == []


def test_a_run_of_ours_is_ended_at_its_limit(tmp_path):
    with pytest.raises(ranks.Failed, match="no end in time"):
        ours.execute(["sleep", "60"], tmp_path / "log", 0.1)


def test_gaps_are_the_times_when_nothing_runs():
    spans = [(0.0, 10.0), (5.0, 8.0), (12.0, 20.0), (20.0, 21.0), (150.0, 160.0)]
    assert trace_summary.gaps(spans) == [2.0, 129.0]
