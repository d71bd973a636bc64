"""A training pass gives the recorded loss and the recorded gradient of every trained tensor."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.seeded_weights import seeded_state_dict
from PIL import Image

import entitysam
from entitysam.checkpoint import published_name

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = json.loads((GOLDEN / "model" / "grads_vits256.json").read_text())
# In the published trainer's list of trained tensors, and never used by its network.
UNUSED = "sam_mask_decoder.cls_prediction_head."


def training_pass():
    """Model with gradients, loss, and all outputs of the recorded case."""
    seed = RECORDED["weight_seed"]
    manifest = json.loads((GOLDEN / "model" / "manifest_vits.json").read_text())
    model = entitysam.build_model("vits", image_size=RECORDED["image_size"])
    entitysam.load_weights(model, seeded_state_dict(manifest, seed))
    model.train()
    files = [GOLDEN / "clip" / "frames" / f"{index:05d}.png" for index in RECORDED["frames"]]
    images = torch.stack([model.prepare(np.array(Image.open(file).convert("RGB"))) for file in files])
    state, outputs = model.initial_state(), []
    for features in model.encode(images):
        output, state = model.propagate(features, state)
        outputs.append(output)
    generator = np.random.Generator(np.random.Philox(seed + 1000))

    def weighted_mean(values):
        weight = torch.from_numpy(generator.standard_normal(values.numel(), dtype=np.float32))
        return (values.flatten() * weight).mean()

    masks = torch.stack([output.mask_logits for output in outputs])
    loss = 100 * weighted_mean(masks)  # the order of the draws is part of the case
    loss = loss + 10 * weighted_mean(torch.stack([output.entity_logits for output in outputs]))
    loss = loss + 10 * weighted_mean(torch.stack([output.iou for output in outputs]))
    loss.backward()
    return model, loss.item(), masks.detach()


def test_loss_and_gradients():
    model, loss, masks = training_pass()
    assert masks.mean().item() == pytest.approx(RECORDED["mask_mean"], rel=1e-4)
    assert masks.std().item() == pytest.approx(RECORDED["mask_std"], rel=1e-4)
    assert loss == pytest.approx(RECORDED["loss"], rel=1e-3)
    expected = {name: norm for name, norm in RECORDED["grad_norm"].items() if not name.startswith(UNUSED)}
    ours = {published_name(name): parameter for name, parameter in model.named_parameters()}
    assert set(expected) <= set(ours)
    wrong = {}
    for name, parameter in ours.items():
        norm = None if parameter.grad is None else parameter.grad.norm().item()
        wanted = expected.get(name)
        if (norm is None) != (wanted is None) or (
            norm is not None and norm != pytest.approx(wanted, rel=1e-3, abs=1e-7)
        ):
            wrong[name] = (norm, wanted)
    assert wrong == {}
    frozen = [name for name, parameter in ours.items() if not parameter.requires_grad]
    assert not set(frozen) & set(expected)
