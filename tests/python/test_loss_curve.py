"""The drawing of a job's losses, of made-up ones."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree

import pytest

from gpipe import LossCurve, v1
from gpipe._metrics import metrics_of

SVG = "{http://www.w3.org/2000/svg}"
NAN, INFINITE = math.nan, math.inf


def curve(losses, evaluations=(), logarithmic=False) -> LossCurve:
    """None: a step of inference. Evaluations are (step, loss), or (step, loss, accuracy)."""
    steps = [v1.StepMetrics(step=i + 1, **({} if loss is None else {"loss": loss})) for i, loss in enumerate(losses)]
    measured = [v1.EvaluationMetrics(**dict(zip(("step", "loss", "accuracy"), each))) for each in evaluations]
    metrics = metrics_of(v1.ListJobMetricsResponse(steps=steps, evaluations=measured))
    return LossCurve("job-abc123", metrics, logarithmic)


class Drawing:
    """As a reader of the file sees it."""

    def __init__(self, drawn: LossCurve):
        self.root = xml.etree.ElementTree.fromstring(drawn.svg())
        self.texts = [text.text for text in self.root.iter(f"{SVG}text")]

    def paths(self, look: str) -> list[str]:
        """Those of the legend come first."""
        return [path.get("d") for path in self.root.iter(f"{SVG}path") if path.get("class") == look]

    def points(self, look: str) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", self.paths(look)[-1])]

    def heights(self) -> list[float]:
        """What is written at the grid."""
        return [float(text.text) for text in self.root.iter(f"{SVG}text") if text.get("class") == "note end"]


def test_a_curve_goes_from_the_left_to_the_right_and_down_with_the_loss():
    drawing = Drawing(curve([2.0, 1.5, 1.25]))
    assert drawing.points("step") == [(72.0, 84.0), (464.0, 236.5), (856.0, 312.8)]
    assert drawing.heights() == [1.2, 1.4, 1.6, 1.8, 2.0]
    assert drawing.texts[:2] == ["loss of job-abc123", "2.0000 at step 1; 1.2500 at step 3"]
    assert "running mean" not in drawing.texts and "evaluation" not in drawing.texts


def test_many_steps_have_their_mean_and_few_points():
    drawing = Drawing(curve([1 + (-1) ** i / 2 for i in range(100_000)]))
    assert len(drawing.points("step faint")) < 2000
    heights = [y for _, y in drawing.points("step")[100:]]
    assert max(heights) - min(heights) < 2  # A pixel.
    assert {"step", "running mean"} <= set(drawing.texts)


def test_evaluations():
    drawing = Drawing(curve([2.0, 1.0, 0.5, 0.25], [(2, 1.5), (4, 0.5, 0.75)]))
    assert len(drawing.paths("evaluation")) == 3 and "evaluation" in drawing.texts
    titles = [title.text for title in drawing.root.iter(f"{SVG}title")]
    assert titles == ["evaluation after step 2: loss 1.5000",
                      "evaluation after step 4: loss 0.5000, accuracy 75.0%"]
    assert drawing.texts[1].endswith(titles[1])
    assert len(Drawing(curve([], [(2, 1.5), (4, 0.5, 0.75)])).paths("evaluation")) == 3


def test_what_is_not_finite_is_a_gap_and_a_point_alone_is_a_dot():
    drawing = Drawing(curve([4.0, 3.0, NAN, 2.0, INFINITE, 1.0, 1.0]))
    assert [part.count("L") for part in drawing.paths("step")[-1].split("M")[1:]] == [1, 0, 1]
    assert len(drawing.points("step dot")) == 1
    assert len(Drawing(curve([4.0])).points("step dot")) == 1


@pytest.mark.parametrize("losses,logarithmic", [([], False), ([None] * 3, False), ([NAN, NAN], False), ([0.0], True),
                                                ([-1.0, -2.0], True)])
def test_without_anything_to_draw(losses, logarithmic):
    drawing = Drawing(curve(losses, logarithmic=logarithmic))
    assert len(drawing.texts) == 2 and not drawing.paths("step")
    assert "no step has a loss" in drawing.texts[1] or len(losses)


def test_a_logarithmic_scale():
    powers = [10.0 ** -i for i in range(5)]
    drawing = Drawing(curve(powers, logarithmic=True))
    assert drawing.heights() == powers[::-1]
    places = [y for _, y in drawing.points("step")]
    assert {round(after - before) for before, after in zip(places, places[1:])} == {61}
    assert Drawing(curve([4.0, 0.3], logarithmic=True)).heights() == [0.2, 0.5, 1, 2, 5]
    assert len(Drawing(curve([1e-30, 0.0, 1e30], logarithmic=True)).heights()) <= 8


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("losses", [[1.0, 1.0], [1.0, 1.0 + 1e-15], [1e-300, 1e300], [0.3, 7e-9], [-5.0, 3e4],
                                    [0.0, 0.0]])
def test_all_lies_within_the_axes(losses, logarithmic):
    drawing = Drawing(curve(losses, logarithmic=logarithmic))
    if drawing.paths("step"):
        assert all(72 <= x <= 856 and 84 <= y <= 328 for x, y in drawing.points("step"))
        assert 2 <= len(drawing.heights()) <= 9 and len(set(drawing.heights())) == len(drawing.heights())


def test_a_notebook_and_a_file_have_the_drawing(tmp_path):
    drawn = curve([2.0, 1.0])
    drawn.save(tmp_path / "loss.svg")
    assert (tmp_path / "loss.svg").read_text() == drawn.svg() and drawn.svg() in drawn._repr_html_()
    assert repr(drawn) == "<LossCurve of job-abc123: 2.0000 at step 1; 1.0000 at step 2>"
