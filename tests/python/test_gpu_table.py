"""bench/gpu: what its table measures first, its bound and shares, and how peers that fail are ended; which curves and
which memory pass, and tries of them on CPUs."""

import argparse
import json
import pathlib
import sys

import pytest
import torch

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "bench" / "gpu"))

import memory  # noqa: E402
import model as models  # noqa: E402
import ours  # noqa: E402
import ranks  # noqa: E402
import stage_times  # noqa: E402
import table  # noqa: E402
import text_curve  # noqa: E402
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
    assert results.loss_difference("mid", 8) == pytest.approx(0.02 / 3)
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


def falling(steps: int = 40) -> list[float]:
    return [5.0 - 0.05 * step for step in range(steps)]


@pytest.mark.parametrize("found,passes", [
    ([loss * 1.009 for loss in falling()], True),
    ([loss * 1.011 for loss in falling()], False),
    ([loss * (1.03 if step == 20 else 1.0) for step, loss in enumerate(falling())], True),
    ([loss * (1.0 if step < 30 else 1.02) for step, loss in enumerate(falling())], False),
    ([float("nan") if step == 20 else loss for step, loss in enumerate(falling())], False),
], ids=["close", "off", "one step off", "off at the end", "no number"])
def test_a_curve_passes_by_its_means_over_ten_steps(found, passes):
    assert text_curve.compare(falling(), found)["passed"] == passes


def test_a_curve_that_learns_nothing_shows_nothing():
    assert not text_curve.compare([5.0] * 40, [5.0] * 40)["passed"]


def test_differences_of_curves_are_relative_to_pytorchs():
    pair = text_curve.compare([4.0, 2.0], [4.0, 2.1])
    assert (pair["largest"], pair["mean"]) == (pytest.approx(0.05), pytest.approx(0.025))
    assert pair["largest_smoothed"] == pair["mean_smoothed"] == pytest.approx(0.1 / 6)
    assert (pair["first"], pair["last"]) == (4.0, [2.0, 2.1])


def test_tokens_are_bytes_of_the_text_and_labels_the_ones_behind_them():
    text = text_curve.read_text()
    assert len(text) > 200 * 32 * 256  # No step has to see the same twice.
    tokens, labels = text_curve.windows(text, 32, 50)
    assert tokens.shape == labels.shape == (50, 32)
    for window, behind in zip(tokens.tolist(), labels.tolist()):
        assert bytes([*window, behind[-1]]) in text and window[1:] == behind[:-1]
    assert torch.equal(tokens, text_curve.windows(text, 32, 50)[0])


def test_memory_is_held_against_the_plan_where_the_allocator_is_told():
    forecast = {"stages": [{"state_bytes": "750", "peak_saved_bytes": "200", "working_bytes": "50"}, {"state_bytes": "800"}]}
    steps = [{"stage_peak_saved_bytes": [150, 0], "stage_peak_allocated_bytes": [1080, 700],
              "stage_peak_reserved_bytes": [2000, 900]},
             {"stage_peak_saved_bytes": [190, 0], "stage_peak_allocated_bytes": [1090, 700],
              "stage_peak_reserved_bytes": [2000, 900]}]
    first, second = memory.stages_of(forecast, steps, {0: 64}, {1: 5000})
    assert first == {"state": 750, "saved": 200, "working": 50, "planned": 1000, "saved_found": 190, "allocated": 1090,
                     "reserved": 2000, "graphs": 64, "gpu": None, "ratio": 1.09, "within": True}
    assert (second["ratio"], second["within"], second["gpu"]) == (0.875, False, 5000)
    untold = memory.stages_of(forecast, [{"stage_peak_saved_bytes": [1, 1]}], {}, {})
    assert not any(stage["within"] for stage in untold)
    assert [memory.passed({"stages": untold}, device) for device in ("cpu", "cuda")] == [True, False]
    assert not memory.passed({"error": "exit 1"}, "cpu")


def test_a_row_of_memory_has_as_many_cells_as_the_head(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "versions", dict)
    memory.print_head(memory.Bench(options_of(), tmp_path))
    head = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| size"))
    forecast, row = {"stages": [{"state_bytes": "800"}]}, Row("ours", "auto", "mid", 8, "always")
    for measured in ({"error": "exit 1"}, {"stages": memory.stages_of(forecast, [{}], {}, {})},
                     {"stages": memory.stages_of(forecast, [{"stage_peak_allocated_bytes": [5]}], {}, {})}):
        assert [line.count("|") for line in memory.table_lines(row, measured)] == [head.count("|")]


def test_graphs_and_the_drivers_memory_are_read_from_what_was_said(tmp_path):
    words = "[2026-01-01 00:00:00.000] [info] stage 1 is captured: 34 CUDA graphs for 8 micro-batches, 352 MiB"
    assert memory.graphs_of([words, "stage 0 runs without CUDA graphs: no memory"]) == {1: 352 << 20}
    driver = memory.Driver(tmp_path)
    driver.log.write_text("0, 4\n1, 700\n0, 900\n1, 650\n0, 9")  # It may be ended within a line.
    assert driver.peaks() == {0: 900 << 20, 1: 700 << 20}


def try_options(**given) -> argparse.Namespace:
    return options_of(**{"device": "cpu", "sizes": ["tiny"], "chunks": [2], "cut": "planner", "capture": ["auto"],
                         "seconds": 100.0, **given})


def test_a_try_of_the_curves(tmp_path, capsys):
    options = try_options(steps=12, lr=1e-3, out=tmp_path / "curves.json")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert text_curve.run(options, tmp_path / "files"), capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)
    cases = json.loads(options.out.read_text())["cases"]
    assert [case["kind"] for case in cases] == list(text_curve.KINDS.values())
    assert {len(losses) for case in cases for losses in case["curves"].values()} == {12}
    last = [{name: losses[-1] for name, losses in case["curves"].items()} for case in cases]
    for own, other in (last, last[::-1]):  # Ours has the same masters, or none.
        assert abs(own["ours"] - own["PyTorch"]) < abs(own["ours"] - other["PyTorch"]) / 5


def test_a_try_of_the_memory(tmp_path, capsys):
    options = try_options(steps=2, checkpoint=["never", "always"], out=tmp_path / "memory.json")
    assert memory.Bench(options, tmp_path).run(), capsys.readouterr().out
    rows = json.loads(options.out.read_text())["rows"]
    stages = [stage for row in rows for stage in row["stages"]]
    assert [len(row["stages"]) for row in rows] == [2, 2]
    for stage in stages:
        assert stage["planned"] == stage["state"] + stage["saved"] + stage["working"] and stage["state"] > 0
        assert abs(stage["saved_found"] / stage["saved"] - 1) <= memory.WITHIN, stage


def test_a_try_of_the_plans_times(tmp_path):
    options = try_options(steps=6, out=tmp_path / "stage_times.json", cut="planner")
    assert stage_times.run(options, tmp_path) == json.loads(options.out.read_text())["rows"]
    (row,) = json.loads(options.out.read_text())["rows"]
    assert row["step_ms"] > 0 and row["planned_step_ms"] > 0 and len(row["stages"]) == 2
    for stage in row["stages"]:
        assert stage["found_ms"] > 0 and stage["forward_ms"] > 0 and stage["backward_ms"] > 0
    assert sum(stage["layers"] for stage in row["stages"]) == len(row["layers"])
