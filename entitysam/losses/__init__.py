"""Matching and losses of a training clip."""

from entitysam.losses.entity_criterion import EntityCriterion, entity_loss, iou_loss, mask_losses
from entitysam.losses.matcher import match, matching_cost

__all__ = ["EntityCriterion", "entity_loss", "iou_loss", "mask_losses", "match", "matching_cost"]
