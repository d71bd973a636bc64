"""Images with the masks that a segmenter found in them, overlaps and parts included: training data of MASA.

`root/<split>/**/*.jpg` and `root/annotations/instances_<split>.json` (COCO instances; tools/prepare_data.py proposals)
"""

from pathlib import Path

from entitysam.data.images import read_image
from entitysam.data.training.convex_hulls import mask_outline
from entitysam.data.training.instances import InstanceJson, instance_mask
from entitysam.data.training.samples import OutlineSample
from entitysam.registry import DATASETS


@DATASETS.register("proposals")
class Proposals(InstanceJson):
    """Any COCO instances; masks keep their full extent where they overlap. Raises as `InstanceJson`.

    Args:
        root, split: see above.
    """

    def __init__(self, root: str | Path = "datasets/proposals", split: str = "train") -> None:
        super().__init__(Path(root) / split, [Path(root) / "annotations" / f"instances_{split}.json"])

    def load(self, index: int) -> OutlineSample:  # type: ignore[override]
        """Reads one image and the hulls of its masks.

        Raises:
            DataError: broken or missing file, or sizes that differ; the message names the file.
        """
        record = self.records[index]
        path, size = self.find(record["image"]), (record["height"], record["width"])
        image = read_image(path, size)
        masks = (instance_mask(instance, *size, str(path)) for instance in record["instances"])
        outlines = [outline for outline in map(mask_outline, masks) if len(outline)]
        return OutlineSample(image, outlines, str(path))
