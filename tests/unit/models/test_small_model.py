"""What the small model has beside the published one: grid prompts, presence, mask prompts, batches of clips, its score."""

import pytest
import torch

from entitysam.checkpoint import CheckpointError, load_weights
from entitysam.engine.build import build_model
from entitysam.models.dual_encoder import ImageFeatures
from entitysam.models.entity_decoder import PixelMasks
from entitysam.models.score_head import MaskAwareScore
from entitysam.registry import ConfigError

PARTS = {
    "image_encoder": {"name": "timm_pyramid", "trunk": "efficientnet_lite0"},
    "semantic_encoder": None, "channels": 32, "image_size": 64, "frozen": [], "num_entities": 9,
    "memory": {"memory_channels": 16, "num_memories": 2, "depth": 1, "hidden": 32,
               "mask_widths": [8, 16], "fuser_depth": 1, "mask_prompt": True},
    "entity_decoder": {"depth": 2, "heads": 2, "hidden": 32, "deep_supervision": True, "mask_aware_score": True},
    "prompt_generator": {"name": "grid_prompts"}, "entity_score": "entity", "min_presence": 0.01,
    "checkpoint_activations": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("vits", **PARTS)


def clips(count, frames, seed=0):
    return torch.randint(
        0, 256, (count, frames, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_points_start_as_a_grid(model):
    output, _ = model.propagate(model.encode(model.normalise(clips(1, 1)[0]))[0], model.initial_state())
    expected = torch.tensor([(x, y) for y in (64 / 6, 32, 320 / 6) for x in (64 / 6, 32, 320 / 6)]) - 0.5
    assert torch.allclose(output.points, expected)


def test_a_present_entity_keeps_its_place_and_others_go_back_to_the_grid(model):
    masks = torch.full((9, 16, 16), -8.0)
    masks[0, 9:14, 2:7] = 8.0
    masks[1, 9:14, 2:7] = 8.0
    present = torch.tensor([True] + [False] * 8)
    points = model.prompt_generator.next_points(masks, present)
    assert points[0].tolist() == [4 * 4 + 1.5, 11 * 4 + 1.5]  # the middle of the square, in pixels
    assert torch.allclose(points[1], torch.tensor([31.5, 64 / 6 - 0.5]))


def test_absent_entities_have_no_mask_and_are_not_remembered(model):
    frame = clips(1, 1)[0]
    features = model.encode(model.normalise(frame))[0]
    model.min_presence = 0.999  # nobody is as sure as that
    try:
        output, state = model.propagate(features, model.initial_state())
    finally:
        model.min_presence = PARTS["min_presence"]
    assert (output.mask_logits <= -10).all()
    assert state.memories[0][..., -1].max() < 1e-4


def test_of_duplicates_one_is_present(model):
    """The better score, unless the other one was there before; masks that overlap by less stay."""
    masks = torch.full((4, 16, 16), -5.0)
    masks[0, :8], masks[1, :9], masks[2, 4:] = 5.0, 5.0, 5.0  # 0 and 1 overlap by 8/9, 1 and 2 by 5/16
    score, present = torch.tensor([0.6, 0.9, 0.3, 0.8]), torch.tensor([True, True, True, False])
    model.max_overlap = 0.5
    try:
        first = model._without_duplicates(masks, score, present, None)
        later = model._without_duplicates(masks, score, present, torch.tensor([True, False, False, False]))
    finally:
        model.max_overlap = 1.0
    assert first.tolist() == [False, True, True, False]
    assert later.tolist() == [True, False, True, False]


def test_the_memory_knows_who_was_there(model):
    memory = torch.zeros(9, 16, 17)
    memory[2, 5, -1] = 0.9
    assert model.memory.knows((memory,)).tolist() == [number == 2 for number in range(9)]
    assert model.memory.knows(()) is None


def test_the_last_mask_is_a_prompt(model):
    features = model.encode(model.normalise(clips(1, 1)[0]))[0]
    _, state = model.propagate(features, model.initial_state())
    memory = state.memories[0].clone()
    memory[3, :, -1] += 0.5
    with_prompt = model.memory.read(features.cells, (memory,))
    without = model.memory.read(features.cells, state.memories)
    expected = 0.5 * model.memory.mask_embed
    assert torch.allclose(with_prompt[3] - without[3], expected.expand_as(without[3]), atol=1e-4)
    assert torch.allclose(with_prompt[4], without[4])


def test_a_batch_of_clips_is_each_clip_by_itself(model):
    model.train()
    try:
        together, alone = model(clips(2, 3)), [model(clip) for clip in clips(2, 3)]
    finally:
        model.eval()
    for a, b in zip(together, alone):
        assert a.layer_masks.shape == (1, 9, 3, 16, 16)
        assert a.points.shape == (9, 3, 2)
        for name in ("mask_logits", "iou", "entity_logits", "points", "layer_masks"):
            assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-4), name


def test_no_layer_masks_outside_training(model):
    assert model(clips(1, 1)[0]).layer_masks is None


def test_every_part_learns_from_two_frames(model):
    model.train()
    output = model(clips(1, 2)[0])
    (output.mask_logits.sum() + output.entity_logits.sum() + output.iou.sum() + output.layer_masks.sum()).backward()
    model.eval()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not [name for name in idle if not name.endswith("bias") and "frequencies" not in name], idle
    model.zero_grad(set_to_none=True)


def test_the_score_sees_the_mask_and_who_overlaps_it():
    torch.manual_seed(1)
    score = MaskAwareScore(16, 2)
    tokens, cells = torch.randn(3, 16), torch.randn(3, 16, 16)
    masks = torch.full((3, 16, 16), -5.0)
    masks[0, :8], masks[1, 8:] = 5.0, 5.0
    before = score(tokens, cells, masks)
    moved = masks.clone()
    moved[1, :8], moved[1, 8:] = 5.0, -5.0  # now on top of entity 0
    after = score(tokens, cells, moved)
    assert (before[1] - after[1]).abs().max() > 1e-3
    assert (before[0] - after[0]).abs().max() > 1e-3


def test_a_stage_may_add_parts():
    """Per-pixel masks and a memory, added to weights without them, change no mask of a first frame."""
    torch.manual_seed(3)
    before = build_model("vits", **{**PARTS, "memory": {"name": "no_memory"}})
    after = build_model("vits", **{**PARTS, "entity_decoder": {**PARTS["entity_decoder"], "pixel_masks": True}})
    with pytest.raises(CheckpointError, match="missing"):
        load_weights(after, before.state_dict())
    report = load_weights(after, before.state_dict(), new_parts=True)
    added = {".".join(name.split(".")[:2]) for name in report.untouched}
    assert added == {
        "memory.attention", "memory.encoder", "memory.temporal_code", "memory.mask_embed", "entity_decoder.pixel_masks"
    }  # fmt: skip
    a, b = before(clips(1, 1)[0]), after(clips(1, 1)[0])
    assert torch.allclose(a.mask_logits, b.mask_logits, atol=1e-5)
    state = before.state_dict()
    state["entity_decoder.iou_queries.other"] = state.pop("entity_decoder.iou_queries.weight")
    with pytest.raises(CheckpointError, match="iou_queries"):
        load_weights(after, state, new_parts=True)


def test_pixel_masks_share_one_embedding():
    """By hand: each entity's vector times each pixel's embedding, over sqrt(C)."""
    torch.manual_seed(4)
    part = PixelMasks(8)
    torch.nn.init.normal_(part.vectors.layers[-1].weight)
    features = ImageFeatures(torch.randn(8, 12, 12), torch.randn(8, 6, 6), torch.randn(9, 8))
    token = torch.randn(5, 8)
    masks = part(token, part.embed(features))
    pixel = part.pixels(features.stride4[:, 3, 7])
    assert masks.shape == (5, 12, 12)
    assert torch.allclose(masks[:, 3, 7], part.vectors(token) @ pixel / 8**0.5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_entities": 10}, "square number"),
        ({"min_presence": 1.0}, "min_presence"),
        ({"max_overlap": 0.0}, "max_overlap"),
        ({"ids": "masks"}, "model.ids"),
    ],
)
def test_refuses(change, words):
    with pytest.raises(ConfigError, match=words):
        build_model("vits", **{**PARTS, **change})
