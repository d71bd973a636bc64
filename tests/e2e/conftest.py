"""Synthetic data sets for runs of the commands."""

import pytest

from entitysam.data.synthetic.writer import SyntheticSet, write_synthetic


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """A handful of synthetic images in COCO's layout, three short videos in VIPSeg's."""
    folder = tmp_path_factory.mktemp("synthetic")
    plan = SyntheticSet(
        train_images=6,
        val_images=1,
        train_videos=1,
        val_videos=2,
        val_frames=3,
        image_size=(64, 80),
        video_size=(64, 80),
    )
    write_synthetic(folder, plan, workers=1)
    return folder
