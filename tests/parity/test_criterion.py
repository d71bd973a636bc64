"""Matching and losses give the recorded numbers of the published training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from entitysam.losses import entity_loss, iou_loss, mask_losses, match, matching_cost
from entitysam.losses.entity_criterion import LOSS_WEIGHTS, target_iou

GOLDEN = Path(__file__).parents[1] / "golden" / "criterion"
CASES = sorted(GOLDEN.glob("case*.npz"))


def load(path):
    case = {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(path).items()}
    case["entity_logits"], case["mask_logits"] = case["entity_logits"][0], case["mask_logits"][0]
    case["pred_iou"] = case["pred_iou"][0, ..., 0]
    case["matched_logits"] = case["mask_logits"][case["query_index"]]
    case["matched_masks"] = case["target_masks"][case["target_index"]]
    return case


def close(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=2e-6, atol=2e-7)


def test_all_cases_are_there():
    assert len(CASES) == 4


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_matching(path):
    case = load(path)
    cost = matching_cost(case["entity_logits"], case["mask_logits"], case["target_masks"], case["match_coords"][0])
    queries, targets = match(cost["total"])
    assert torch.equal(queries, case["query_index"])
    assert torch.equal(targets, case["target_index"])
    if not len(queries):
        assert cost["total"].shape == (len(case["entity_logits"]), 0)
        return
    close(cost["mask"], case["expect_cost_mask"])
    close(cost["dice"], case["expect_cost_dice"])
    close(cost["entity"], case["expect_cost_class"])
    close(cost["total"], case["expect_cost"])


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool])
def test_losses(path, dtype):
    case = load(path)
    logits, masks = case["matched_logits"], case["matched_masks"].to(dtype)
    num_masks = max(masks.shape[0] * masks.shape[1], 1)
    losses = {"entity": entity_loss(case["entity_logits"], case["query_index"])}
    losses["mask"], losses["dice"] = mask_losses(logits, masks, case["loss_coords"], num_masks)
    losses["iou"] = iou_loss(case["pred_iou"][case["query_index"]], logits, masks)
    for name, loss in losses.items():
        close(loss, case[f"expect_loss_{name}"])
    close(sum(LOSS_WEIGHTS[name] * loss for name, loss in losses.items()), case["expect_total"])
    if len(masks):
        close(target_iou(logits, masks), case["expect_target_iou"])
