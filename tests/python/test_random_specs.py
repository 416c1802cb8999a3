import random_specs


def test_random_specs_equal_pytorch():
    assert random_specs.run(count=8, seed=100, workers=3, device="cpu") < 1e-4
