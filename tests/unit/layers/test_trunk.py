"""timm architectures by name: nothing of a config opens a file, asks a server, or takes all memory."""

import pytest

from entitysam.layers.trunk import create_trunk


@pytest.mark.parametrize(
    "name", ["hf-hub:any/repo", "hf_hub:any/repo", "timm/vit", "local-dir:/etc", "no_such_vit", ""]
)
def test_names_with_a_source_are_refused(name):
    with pytest.raises(ValueError, match="no built-in architecture of timm"):
        create_trunk(name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pretrained", True),
        ("checkpoint_path", "/etc/passwd"),
        ("pretrained_cfg", {"hf_hub_id": "any/repo"}),
        ("pretrained_cfg_overlay", {"file": "/etc/passwd"}),
        ("depth", 10**9),
        ("embed_dim", 10**9),
        ("depth", -1),
        ("depth", float("inf")),
    ],
)
def test_arguments_are_limited(key, value):
    with pytest.raises(ValueError, match=f"trunk_args.{key}: "):
        create_trunk("vit_tiny_patch16_224", {key: value})
