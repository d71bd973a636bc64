"""Files that are no SAM 2.1: each is named."""

import pytest
import torch

from entitysam.engine.build import open_model
from entitysam.errors import CheckpointError
from entitysam.sam2.names import from_release, release_size

PUBLISHED = {  # some of the names of the published EntitySAM, which keeps SAM 2's
    "image_encoder.trunk.patch_embed.proj.weight": torch.zeros(96, 3, 7, 7),
    "sam_mask_decoder.mask_tokens.weight": torch.zeros(4, 256),
    "sam_mask_decoder.queries.weight": torch.zeros(50, 256),
    "obj_ptr_tpos_proj.weight": torch.zeros(64, 256),
}


def test_a_published_entitysam_is_no_sam2(tmp_path):
    assert release_size(PUBLISHED) is None
    with pytest.raises(
        CheckpointError, match=r"an EntitySAM file, which lacks SAM 2's mask decoder and object pointers"
    ):
        from_release(PUBLISHED, "model_0009999.pth")
    torch.save({"model": PUBLISHED}, tmp_path / "model_0009999.pth")
    with pytest.raises(CheckpointError, match=r"model_0009999\.pth: an EntitySAM file, which lacks"):
        open_model("sam2_tiny", tmp_path / "model_0009999.pth", kind="sam2")


def test_other_files_are_named():
    with pytest.raises(CheckpointError, match=r"x\.pt: not a SAM 2\.1 file \(it holds backbone\.weight\)"):
        from_release({"backbone.weight": torch.zeros(1)}, "x.pt")
