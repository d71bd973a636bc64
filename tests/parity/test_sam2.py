"""Prompted SAM 2.1 gives the recorded masks of the public implementation on the same weights, frames and prompts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.seeded_weights import seeded_state_dict
from PIL import Image

import entitysam
from entitysam.sam2.names import from_release
from entitysam.sam2.session import PromptedSession

GOLDEN = Path(__file__).parents[1] / "golden"
SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
TOLERANCE = 1e-4  # of the largest recorded logit
SLOW = {"small512", "base_plus256", "large256"}
CASES = [
    pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in sorted((GOLDEN / "sam2").glob("*256*.json")) + sorted((GOLDEN / "sam2").glob("*512*.json"))
]


def open_case(name):
    case = json.loads((GOLDEN / "sam2" / f"{name}.json").read_text())
    manifest = json.loads((GOLDEN / "sam2" / f"manifest_{case['size']}.json").read_text())
    weights = seeded_state_dict(manifest, case["seed"])
    weights[SCORE_BIAS] += case.get("score_bias", 0.0)
    model = entitysam.build_model(f"sam2_{case['size']}", image_size=case["image_size"])
    model.load_state_dict(from_release(weights, name))
    files = sorted((GOLDEN / "clip" / "frames").glob("*.png"))[: case["frames"]]
    return case, PromptedSession(model, [np.array(Image.open(file).convert("RGB")) for file in files], fill_hole_area=0)


def run(case, session):
    """Masks by the keys of the recorded file."""
    for number, (kind, *values) in enumerate(case["steps"]):
        if kind == "propagate":
            for frame in session.propagate(reverse=values[0]):
                yield f"{number}_{frame.index}", frame
        elif kind == "mask":
            index, object_id, (x1, y1, x2, y2) = values
            mask = np.zeros(session.size, bool)
            mask[y1:y2, x1:x2] = True
            yield str(number), session.add_mask(index, object_id, mask)
        else:
            index, object_id, points, labels, box, extend = values
            yield str(number), session.add_points(index, object_id, points, labels, box, extend=extend)


@pytest.mark.parametrize("name", CASES)
def test_masks_equal_the_recorded_ones(name):
    case, session = open_case(name)
    recorded = dict(np.load(GOLDEN / "sam2" / f"{name}.npz"))
    results = dict(run(case, session))
    assert set(results) == set(recorded)
    for key, expected in recorded.items():
        found = results[key].mask_logits[:, ::6, ::6].numpy()
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max(), key
    if "occlusion" in name:  # the first object leaves and returns
        visible = [results[f"3_{t}"].object_scores[0] > 0 for t in range(case["frames"])]
        assert visible[0]
        assert not all(visible[1:])
        assert any(visible[1:])


@pytest.mark.parametrize("size", ["tiny", "small", "base_plus", "large"])
def test_every_tensor_of_the_release_has_its_place(size):
    manifest = json.loads((GOLDEN / "sam2" / f"manifest_{size}.json").read_text())
    with torch.device("meta"):
        model = entitysam.build_model(f"sam2_{size}")
        state = from_release({name: torch.empty(shape) for name, shape in manifest.items()}, size)
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in state.items()} == own
