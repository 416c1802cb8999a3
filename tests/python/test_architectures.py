"""The architectures that need nothing but torch; the others, too many for every run: see architectures.py."""

import pytest

from architectures import CHECK, KINDS, in_a_process, passed
from architectures_cluster import compare

NAMES = ["U-Net", "three inputs, two outputs", "mlp with dropout(0.4)", "corner: sizes of crossing values",
         "corner: sizes that depend on data"]


@pytest.mark.skipif(not CHECK.exists(), reason=f"needs {CHECK}, which an installation has not")
@pytest.mark.parametrize("name", [*NAMES, "lstm and gru"])
def test_every_gradient_and_parameter_is_pytorchs_whatever_the_cut(name):
    result = in_a_process(name)
    assert passed(result), result
    assert all(kind in result for kind in KINDS)


@pytest.mark.parametrize("name", NAMES)
def test_workers_train_as_pytorch_does_where_the_measured_partition_cuts(cluster, tmp_path, name):
    result = compare(cluster, name, tmp_path, workers=(1, 2, 3))
    assert result.passed(), result
    assert [len(balance) for balance in result.balances.values()] == [1, 2, 3]
