"""Every file of configs/data composes, and its mapper and data set take the keys it gives them."""

import pytest

from entitysam.config import load_config, shipped_folder, to_dict
from entitysam.data import DataError
from entitysam.registry import DATASETS, ConfigError, build

NAMES = sorted(path.stem for path in (shipped_folder("configs") / "data").glob("*.yaml"))


def compose(tmp_path, name, *overrides):
    (tmp_path / "run.yaml").write_text(f"defaults: [{{data: {name}}}, _self_]\n")
    return to_dict(load_config(tmp_path / "run.yaml", overrides))["data"]


@pytest.mark.parametrize("name", NAMES)
def test_data_configs_build(tmp_path, name):
    data = compose(tmp_path, name, f"data.dataset.root={tmp_path}")
    frames = {} if data["mapper"]["name"] == "two_views" else {"num_frames": 2}
    mapper = build(DATASETS, {**data["mapper"], "image_size": 64, **frames}, "data.mapper")
    assert mapper.image_size == 64
    assert getattr(mapper, "num_frames", 2) == 2
    assert data["num_workers"] > 0
    for dataset in data["datasets"] or [data["dataset"]]:
        keys = {key: value for key, value in dataset.items() if key not in ("weight", "mapper")}
        build(DATASETS, {**data["mapper"], **dataset.get("mapper", {})}, "data.mapper")
        with pytest.raises(DataError, match=str(tmp_path)):  # the keys fit; only the files are not there
            build(DATASETS, {**keys, "root": tmp_path}, "data.dataset")


def test_coco_has_the_numbers_of_the_paper_and_all_keys_are_reachable(tmp_path):
    mapper = build(DATASETS, compose(tmp_path, "coco")["mapper"])
    assert mapper.ranges == type(mapper.ranges)()
    assert mapper.max_targets is None
    narrow = build(DATASETS, compose(tmp_path, "coco", "data.mapper.scale=[0.5,1.5]", "data.mapper.angle=0")["mapper"])
    assert narrow.ranges.scale == (0.5, 1.5)
    assert narrow.ranges.angle == 0


def test_a_misspelt_key_is_named(tmp_path):
    data = compose(tmp_path, "coco", "+data.mapper.angel=3")
    with pytest.raises(ConfigError, match=r"data\.mapper\.angel: unknown key"):
        build(DATASETS, data["mapper"], "data.mapper")
