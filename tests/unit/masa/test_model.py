"""MASA as a whole, every config at a small size: what comes out, where gradients go, whether it learns."""

import pytest
import torch
import torch.nn.functional as F
from support.masa_small import pair, small

from entitysam.engine.build import build_model
from entitysam.masa import model as masa_model
from entitysam.masa.criterion import MasaCriterion
from entitysam.masa.model import MASA
from entitysam.registry import ConfigError
from entitysam.structures import BoxTargets

CONFIGS = ["masa_r50", "masa_sam_vitb", "masa_sam_vith", "masa_gdino_swinb", "masa_tiny"]


def losses_of(model: MASA, frames, targets, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    output = model(frames, targets, generator)
    return MasaCriterion()(output, targets, generator, 1.0), output


@pytest.mark.parametrize("name", CONFIGS)
def test_two_steps_of_every_config(name):
    torch.manual_seed(0)
    model = build_model(small(name)).train()
    assert not any(part.training for part in model.backbone.modules()) or name == "masa_tiny"
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(trained, lr=1e-2)
    for _ in range(2):
        losses, _ = losses_of(model, *pair())
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
    assert torch.isfinite(losses["total"])
    for key, parameter in model.named_parameters():
        frozen = name != "masa_tiny" and key.startswith("backbone.")
        assert (parameter.grad is None) == frozen, key
        assert torch.equal(parameter, before[key]) <= (frozen or parameter.grad.abs().sum() == 0), key


def test_track_head_alone_can_be_trained():
    model = build_model(small("masa_tiny") | {"frozen": ["backbone", "adapter", "detection_head"]}).train()
    losses, output = losses_of(model, *pair())
    losses["total"].backward()
    assert output.detection == {}
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"track_head"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(small("masa_tiny"))


def test_encode_embed_propose(model):
    image = torch.randint(0, 256, (3, 60, 90), dtype=torch.uint8)
    with torch.no_grad():
        features = model.encode(image)
        boxes, scores = model.propose(features, limit=10)
        embeddings = model.embed(features, boxes)
    assert features.scale == pytest.approx(128 / 90)
    assert features.image_size == (60, 90)
    assert [tuple(one.shape[2:]) for one in features.maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert embeddings.shape == (len(boxes), 256)
    assert len(scores) == len(boxes) <= 10
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 90 + 1e-3
    assert boxes[:, 3].max() <= 60 + 1e-3


def test_embeddings_belong_to_boxes_of_the_image(model):
    """The same image, twice as large: boxes twice as large have nearly the same embeddings."""
    smooth = F.interpolate(torch.rand(1, 3, 6, 6), size=(96, 96), mode="bicubic")[0].clamp(0, 1) * 255
    larger = F.interpolate(smooth[None], scale_factor=2, mode="bilinear")[0]
    boxes = torch.tensor([[10.0, 10, 50, 60], [40, 30, 90, 90]])
    with torch.no_grad():
        a = model.embed(model.encode(smooth), boxes)
        b = model.embed(model.encode(larger), boxes * 2)
        other = model.embed(model.encode(smooth), boxes.flip(0))
    assert (a - b).norm() < 0.2 * (a - other).norm()


def test_boxes_outside_and_empty_have_embeddings(model):
    features = model.encode(torch.zeros(3, 50, 50))
    boxes = torch.tensor([[-30.0, -30, -10, -10], [10, 10, 10, 10], [40, 40, 500, 500]])
    assert torch.isfinite(model.embed(features, boxes)).all()


@pytest.mark.parametrize("shape", [(50, 50), (1, 50, 50), (3, 0, 50), (1, 3, 50, 50)])
def test_images_that_are_none(model, shape):
    with pytest.raises(ValueError, match=r"an image must be \[3, H, W\] RGB"):
        model.encode(torch.zeros(shape))


def test_rows_of_instances_come_back(model):
    """Keys have instances of the key view; the third is in the key view alone, so no reference box may claim it."""
    _, output = losses_of(model.train(), *pair())
    model.eval()
    _, targets = pair()
    assert set(output.key_instances.tolist()) == {0, 1, 2}
    assert set(output.reference_instances.tolist()) - {-1} == {0, 1}
    for row in range(3):
        assert (output.key_boxes[output.key_instances == row] == targets.boxes[row, 0]).all(1).any()


def test_a_pair_depends_on_its_generator_alone(model):
    model.train()
    torch.manual_seed(1)
    first, _ = losses_of(model, *pair())
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second, _ = losses_of(model, *pair())
    model.eval()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # and leaves torch's own source alone


def test_pairs_without_instances(model):
    frames, _ = pair()
    empty = BoxTargets(torch.zeros(0, 2, 4), torch.zeros(0, 2, dtype=torch.bool))
    losses, _ = losses_of(model.train(), frames, empty)
    model.eval()
    assert losses["contrastive"] == 0
    assert torch.isfinite(losses["total"])


def test_two_views_can_be_learned():
    """After a few steps on one pair, the box most like an instance is its own in the other view, by a clear distance."""
    torch.manual_seed(0)
    model = build_model(small("masa_tiny")).train()
    frames, targets = pair()
    for row, colour in enumerate(torch.tensor([[220, 40, 40], [40, 210, 60], [60, 80, 230]])):
        for view in (0, 1):  # the same colour in both views
            x1, y1, x2, y2 = targets.boxes[row, view].int().tolist()
            frames[view, :, y1:y2, x1:x2] = colour[:, None, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(25):
        losses, output = losses_of(model, frames, targets, step)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
    similarity = (F.normalize(output.key, dim=1) @ F.normalize(output.reference, dim=1).T).detach()
    positive = output.key_instances[:, None] == output.reference_instances
    in_both = positive.any(1)
    best = similarity[in_both].argmax(1)
    assert positive[in_both][torch.arange(len(best)), best].all()
    assert similarity[positive].mean() > similarity[~positive].mean() + 0.3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frozen": ["neck"]}, "model.frozen"),
        ({"image_size": 0}, "image_size 0"),
        ({"backbone": {"name": "timm_features", "trunk": "resnet1", "indices": [1]}}, "model.backbone"),
        ({"fusion": {"name": "deformable_fusion", "blocks": 3}}, r"model\.fusion\.blocks: unknown key"),
    ],
)
def test_bad_configs_built(change, words):
    with pytest.raises(ConfigError, match=words):
        build_model(small("masa_tiny") | change)


def test_embeddings_of_many_boxes_are_computed_in_batches(monkeypatch):
    """A frame of thousands of boxes does not hold the pooled features of all of them at once."""
    network = build_model(small("masa_tiny")).eval()
    features = network.encode(torch.randint(0, 256, (3, 60, 80), generator=torch.Generator().manual_seed(0)))
    corner = 40 * torch.rand(25, 2, generator=torch.Generator().manual_seed(1))
    boxes = torch.cat([corner, corner + 12], 1)
    whole, sizes, head = network.embed(features, boxes), [], network.track_head.forward
    monkeypatch.setattr(network.track_head, "forward", lambda maps, b: sizes.append(len(b[0])) or head(maps, b))
    monkeypatch.setattr(masa_model, "BOXES_PER_BATCH", 10)
    torch.testing.assert_close(network.embed(features, boxes), whole)
    assert sizes == [10, 10, 5]
    assert network.embed(features, boxes[:0]).shape == (0, whole.shape[1])


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"trunk": "hf-hub:somebody/network"}, "'hf-hub:somebody/network' is no built-in architecture of timm"),
        ({"trunk": "local-dir:/tmp"}, "'local-dir:/tmp' is no built-in architecture"),
        ({"indices": [9]}, r"backbone.indices: \[9\], but resnet10t has maps 0..4"),
        ({"indices": []}, r"backbone.indices: \[\]"),
    ],
)
def test_backbones_that_are_refused(backbone, message):
    """A config from a weight file must not ask a server for a network."""
    node = small("masa_tiny")
    with pytest.raises(ConfigError, match=message):
        build_model(node | {"backbone": node["backbone"] | backbone})
