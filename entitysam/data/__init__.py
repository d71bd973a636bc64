"""Training and evaluation data: readers, augmentation, the loader, the synthetic set. Importing this package registers the readers."""

import entitysam.data.evaluation.coco_panoptic
import entitysam.data.evaluation.id_maps
import entitysam.data.evaluation.mot
import entitysam.data.evaluation.vipseg
import entitysam.data.evaluation.vspw
import entitysam.data.evaluation.ytvis
import entitysam.data.training.coco
import entitysam.data.training.cutout_video
import entitysam.data.training.instances
import entitysam.data.training.panoptic_videos
import entitysam.data.training.proposals
import entitysam.data.training.pseudo_video
import entitysam.data.training.two_views  # noqa: F401  (all register their readers)
from entitysam.data.images import DataError

__all__ = ["DataError"]
