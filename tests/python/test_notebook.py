"""examples/notebook.ipynb, run without a browser as nbconvert does it, and its pictures, seen in one."""

from __future__ import annotations

import os
import pathlib
import re
import xml.etree.ElementTree

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbconvert.preprocessors import ExecutePreprocessor

from browser import Browser
from cluster import BIN, ROOT, wait_until

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
PICTURES = {"plan": "gpipe-plan", "loss": "gpipe-loss", "timeline": "gpipe-timeline"}  # By cells.
SVG = "{http://www.w3.org/2000/svg}"
STEPS, MARK = 150, "GPIPE_NOTEBOOK_TEST"
# Of each drawing: its size, what lies outside it, and which of its words cover each other.
LOOK = """
const within = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1 &&
                                 inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
const before = (a, b) => a.right <= b.left + 1 || a.bottom <= b.top + 1;
return [...document.querySelectorAll("svg[class^=gpipe-]")].map((svg) => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  const shapes = [...svg.querySelectorAll(":is(rect, path, text):not(defs *)")];
  return {
    look: svg.getAttribute("class"), width: frame.width, height: frame.height,
    outside: shapes.filter((shape) => !within(shape.getBoundingClientRect(), frame)).length,
    covered: texts.flatMap(([words, place], i) =>
      texts.slice(i + 1).filter(([, other]) => !before(place, other) && !before(other, place))
                        .map(([others]) => [words, others])),
  };
});
"""


def marked_processes(value: str) -> list[int]:
    """Those that have inherited the mark, wherever they have gone since."""
    found = []
    for place in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={value}".encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
        except OSError:  # It has ended, or is not ours.
            pass
    return [process for process in found if process != os.getpid()]


def environment(folder: pathlib.Path) -> dict[str, str]:
    """Of the kernel; what Jupyter and PyTorch keep is in the folder, too."""
    (folder / "temporary").mkdir()
    return {"GPIPE_BIN_DIR": str(BIN), "PYTHONPATH": str(ROOT / "client" / "python"), MARK: str(folder),
            "TMPDIR": str(folder / "temporary"), "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def executed(folder):
    """With the outputs of its cells. An error in one of them is raised."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        ExecutePreprocessor(timeout=300).preprocess(notebook, {"metadata": {"path": str(folder)}})
    return notebook


def outputs(notebook, cell: str) -> list:
    return next(each.outputs for each in notebook.cells if each.id == cell)


def shown(notebook, cell: str, kind: str) -> str:
    """What the cell shows as this type of medium."""
    return next(each.data[kind] for each in outputs(notebook, cell) if kind in each.get("data", {}))


def drawing(notebook, cell: str) -> xml.etree.ElementTree.Element:
    """The picture that the cell shows."""
    return xml.etree.ElementTree.fromstring(shown(notebook, cell, "text/html")).find(f"{SVG}svg")


def printed(notebook, cell: str) -> str:
    return "".join(each.text for each in outputs(notebook, cell) if each.get("name") == "stdout")


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None), cell.id


def test_all_cells_run_and_nothing_complains(executed):
    for cell in executed.cells:
        if cell.cell_type == "code":
            assert cell.execution_count, cell.id
            assert all(each.output_type != "error" and each.get("name") != "stderr" for each in cell.outputs), cell


def test_nothing_is_left(executed, folder):
    wait_until(lambda: not marked_processes(str(folder)), 15, "all processes gone")
    assert not list((folder / "temporary").iterdir())


@pytest.mark.parametrize("cell", PICTURES)
def test_pictures_are_drawn(executed, cell):
    picture = drawing(executed, cell)
    assert picture.get("class") == PICTURES[cell]
    assert len(list(picture.iter(f"{SVG}text"))) >= 8 and len(list(picture.iter(f"{SVG}path"))) >= 3


def test_pictures_say_what_was_done(executed):
    texts = {cell: [text.text for text in drawing(executed, cell).iter(f"{SVG}text")] for cell in PICTURES}
    assert texts["plan"][0] == "2 stages on 2 workers"
    assert {"stage 0", "stage 1", "w0", "w1"} <= set(texts["timeline"])
    assert texts["timeline"][0].startswith(f"step {STEPS} of sort-")
    titles = [title.text for title in drawing(executed, "timeline").iter(f"{SVG}title")]
    for stage in range(2):
        for action in ("F0", "F3", "B0", "B3", "OPT"):
            assert any(title.startswith(f"stage {stage} {action}: ") for title in titles), (stage, action, titles)


def test_the_loss_falls(executed):
    words = list(drawing(executed, "loss").iter(f"{SVG}text"))[1].text
    found = re.match(rf"([\d.]+) at step 1; ([\d.]+) at step {STEPS}; evaluation .* accuracy ([\d.]+)%$", words)
    first, last, accuracy = map(float, found.groups())
    assert first > 2 and last < 0.2 and accuracy > 90, words


def test_the_bar_is_full(executed):
    assert shown(executed, "train", "application/vnd.jupyter.widget-view+json")
    widgets = executed.metadata.widgets["application/vnd.jupyter.widget-state+json"].state.values()
    bars = [each.state for each in widgets if each.model_name == "FloatProgressModel"]
    assert [(bar.value, bar.max, bar.bar_style) for bar in bars] == [(STEPS, STEPS, "success")]
    assert "SUCCEEDED" in shown(executed, "train", "text/html")


def test_the_trained_model_sorts(executed):
    pairs = [[side.split() for side in line.split("->")] for line in printed(executed, "weights").splitlines()]
    right = [sorted(before)[i] == after[i] for before, after in pairs for i in range(12)]
    assert len(right) == 36 and sum(right) >= 30, pairs


def test_outputs_of_gpipe_are_those_of_pytorch(executed):
    difference = re.fullmatch(r"outputs differ by (\S+) at most\n", printed(executed, "gpipe"))
    assert float(difference[1]) < 1e-4


def test_a_browser_shows_all_pictures_whole(executed, folder):
    page = folder / "notebook.html"
    page.write_text(HTMLExporter().from_notebook_node(executed)[0])
    browser = Browser(width=1280, height=1000)
    try:
        browser.open(page.as_uri())
        pictures = browser.run(LOOK)
    finally:
        browser.close()
    assert [picture["look"] for picture in pictures] == list(PICTURES.values())
    for picture in pictures:
        assert picture["width"] >= 640 and picture["height"] >= 150, picture
        assert (picture["outside"], picture["covered"]) == (0, []), picture
