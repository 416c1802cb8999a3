"""Exported models and data that cannot be run are refused before anything starts, with the field and exit code 2."""

import pytest

from cluster import gpipe
from refusals import REFUSALS, control_flow, violation


def expect_refused(refusal, done):
    assert done.returncode == 2, done.stdout + done.stderr
    field, message = violation(done.stderr)
    assert field == refusal.field and refusal.words in message, done.stderr


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.what.replace(" ", "-"))
def test_what_cannot_run_is_refused_with_its_field(cluster, tmp_path, refusal):
    spec = refusal.make(tmp_path)
    for command in (["validate"], ["job", "submit"]):
        expect_refused(refusal, gpipe(*command, spec, address=cluster.address, check=False))
    expect_refused(refusal, gpipe("run", spec, "--output", tmp_path / "out", check=False))
    assert not (tmp_path / "out").exists()


def test_control_flow_on_data_is_refused_where_it_is(tmp_path):
    words = control_flow(tmp_path)
    assert "refusals.py:" in words and "if x.sum() > 0" in words and "data-dependent" in words
    assert not list(tmp_path.iterdir())
