"""The table of names covers the published checkpoints, tensor by tensor, both ways."""

import json
from pathlib import Path

import pytest
import torch

import entitysam
from entitysam.checkpoint import our_name, published_name

MODELS = Path(__file__).parents[1] / "golden" / "model"
# What the published files hold and their network never uses.
UNUSED = {
    "no_mem_pos_enc",
    "no_obj_embed_spatial",
    "obj_ptr_tpos_proj.weight",
    "obj_ptr_tpos_proj.bias",
    "dinov2_feature_extractor.mask_token",
    "sam_mask_decoder.iou_token.weight",
    "sam_mask_decoder.mask_tokens.weight",
    *(f"sam_prompt_encoder.point_embeddings.{i}.weight" for i in (0, 2, 3)),
    *(f"sam_prompt_encoder.mask_downscaling.{i}.{kind}" for i in (0, 1, 3, 4, 6) for kind in ("weight", "bias")),
    *(
        f"sam_mask_decoder.{head}.layers.{i}.{kind}"
        for head in ("cls_prediction_head", *(f"output_hypernetworks_mlps.{n}" for n in (1, 2, 3)))
        for i in range(3)
        for kind in ("weight", "bias")
    ),
}


def manifest(size):
    return json.loads((MODELS / f"manifest_{size}.json").read_text())


@pytest.fixture(scope="module", params=["vits", "vitl"])
def case(request):
    """Published names and shapes, and ours, of one size; nothing is allocated."""
    with torch.device("meta"):
        model = entitysam.build_model(request.param)
    return manifest(request.param), {name: list(value.shape) for name, value in model.state_dict().items()}


def test_every_used_tensor_has_one_place_of_its_shape(case):
    published, ours = case
    used = {name: shape for name, shape in published.items() if name not in UNUSED}
    places = {name: our_name(name) for name in used}
    assert sorted(places.values()) == sorted(ours)
    for name, place in places.items():
        assert ours[place] == used[name], name


def test_every_tensor_of_ours_goes_back_where_it_came_from(case):
    published, ours = case
    for name in ours:
        assert our_name(published_name(name)) == name
    assert {published_name(name) for name in ours} == set(published) - UNUSED


def test_the_rest_is_unused(case):
    published, _ = case
    assert {name for name in published if our_name(name) is None} == UNUSED
