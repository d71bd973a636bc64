"""What tests of several files share: a small network, frames for it, and where the golden numbers are."""

from pathlib import Path

import numpy as np
import pytest
import torch

import entitysam

GOLDEN = Path(__file__).parent / "golden"
SMALL = {"image_size": 64, "num_entities": 6}


@pytest.fixture(scope="session")
def small_model():
    """A random `tiny` network for 64 x 64 input and 6 entities, in eval mode. Shared: do not change it."""
    torch.manual_seed(0)
    return entitysam.build_model("tiny", **SMALL)


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
