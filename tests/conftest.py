"""What tests of several files share: a small network and frames for it."""

import os

# Several test processes run side by side (and start more): one thread each, before torch reads it. Sums depend in the last
# digit on the number of threads, and processes are compared with each other.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch
from golden.seeded_weights import seeded_state_dict

import entitysam


def pytest_runtest_setup(item):
    """Skips the tests marked `cuda` where PyTorch sees no GPU."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def small_model():
    """A `tiny` network for 64 x 64 input and 6 entities, in eval mode. Shared: do not change it.

    Its seeded weights tell entities apart, which a fresh network's do not.
    """
    model = entitysam.build_model("tiny_scratch", image_size=64, num_entities=6)
    weights = seeded_state_dict({name: value.shape for name, value in model.state_dict().items()}, seed=2)
    model.load_state_dict({name: 6 * value if "_queries." in name else value for name, value in weights.items()})
    return model


@pytest.fixture(scope="session")
def small_video() -> list[np.ndarray]:
    """8 frames uint8 [48, 80, 3]: two squares move over a smooth background."""
    rows, columns = np.mgrid[:48, :80]
    background = np.stack([2 * rows, 3 * columns, 255 - rows - columns], axis=-1).astype(np.uint8)
    frames = []
    for t in range(8):
        frame = background.copy()
        frame[4 + 3 * t : 20 + 3 * t, 10:26] = (220, 40, 40)
        frame[20:36, 70 - 6 * t : 80 - 6 * t] = (30, 60, 230)
        frames.append(frame)
    return frames
