"""The tiny network with its memory overfits one clip: losses, matching and training loop work together."""

import torch

from entitysam import build_model
from entitysam.config import load_config, to_dict
from entitysam.engine.train.trainer import fit
from entitysam.losses import EntityCriterion
from entitysam.losses.entity_criterion import target_iou
from entitysam.structures import Clip, Targets

SIDE = 64


def moving_blocks():
    """Two frames of three coloured blocks on a ground that is an entity too; one block moves."""
    ids = torch.zeros(2, SIDE, SIDE, dtype=torch.long)
    ids[:, 8:32, 8:28] = 1
    ids[:, 36:60, 4:32] = 2
    ids[0, 12:36, 40:60], ids[1, 24:48, 40:60] = 3, 3
    colours = torch.tensor([[30, 30, 40], [220, 40, 40], [40, 210, 60], [60, 80, 230]], dtype=torch.uint8)
    frames = colours[ids].permute(0, 3, 1, 2).contiguous()
    masks = torch.stack([ids == n for n in range(4)])
    return Clip(frames, Targets(masks, torch.full((4,), -1)), "blocks", 0)


def test_overfits_one_clip(tmp_path):
    changes = ["optim.max_iters=120", "optim.lr=3e-3", "optim.schedule=cosine", "optim.warmup_iters=10"]
    changes += ["train.batch_size=1", "train.image_period=0", "train.tensorboard=false", "train.save_period=0"]
    config = load_config("tiny_scratch_stage2", [*changes, f"output_dir={tmp_path}"])
    torch.manual_seed(0)
    model = build_model({**to_dict(config)["model"], "image_size": SIDE, "num_entities": 8})
    criterion, clip = EntityCriterion(num_points=1024), moving_blocks()
    assert fit(model, criterion, lambda start: iter([clip] * 1000), config, torch.device("cpu"))
    with torch.no_grad():
        output = model.eval()(clip.frames)
    queries, order = criterion.match(output, clip.targets)
    iou = target_iou(output.mask_logits[queries], clip.targets.masks[order])
    assert iou.min() > 0.9, iou
    # The focal loss pulls both logits of an unmatched query down; between them a softmax would compare noise.
    entity = output.entity_logits.sigmoid()[:, 1]
    others = [q for q in range(8) if q not in queries.tolist()]
    assert entity[queries].min() > 0.9
    assert entity[others].max() < 0.6
    assert (output.iou[queries] - iou).abs().max() < 0.15
