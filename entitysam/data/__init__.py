"""Training data: readers, augmentation, the loader, and the synthetic set. Importing it registers the readers."""

from entitysam.data import coco, instances, panoptic_videos, pseudo_video, videos_panoptic  # noqa: F401  (registers)
from entitysam.data.images import DataError

__all__ = ["DataError"]
