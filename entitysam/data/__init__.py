"""Training and evaluation data: readers, augmentation, the loader, the synthetic set. Importing it registers the readers."""

from entitysam.data import (  # noqa: F401  (registers)
    coco,
    instances,
    panoptic_videos,
    proposals,
    pseudo_video,
    two_views,
    videos_coco,
    videos_instances,
    videos_panoptic,
    videos_semantic,
    videos_tracks,
)
from entitysam.data.images import DataError

__all__ = ["DataError"]
