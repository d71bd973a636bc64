"""Published names -> ours: names derived from the public configurations fill every tensor of the models."""

import pytest
import torch
import torchvision
from torch import nn

from entitysam.checkpoint import CheckpointError, load_weights
from entitysam.checkpoint.names.masa import GROUNDING_DINO, PUBLISHED, SAM, _timm_order, kind, to_ours
from entitysam.engine.build import build_model, model_config


def norm(prefix: str, width: int, batch: bool) -> dict:
    names = {f"{prefix}.weight": (width,), f"{prefix}.bias": (width,)}
    if batch:
        names |= {
            f"{prefix}.running_mean": (width,),
            f"{prefix}.running_var": (width,),
            f"{prefix}.num_batches_tracked": (),
        }
    return names


def layer(prefix: str, *shape: int, bias: bool = True) -> dict:
    return {f"{prefix}.weight": shape} | ({f"{prefix}.bias": shape[:1]} if bias else {})


def pyramid(widths: list[int], batch: bool) -> dict:
    names = {}
    for i, width in enumerate(widths):
        for convs, shape in (("lateral_convs", (256, width, 1, 1)), ("fpn_convs", (256, 256, 3, 3))):
            names |= layer(f"masa_adapter.0.{convs}.{i}.conv", *shape, bias=not batch)
            names |= norm(f"masa_adapter.0.{convs}.{i}.bn", 256, True) if batch else {}
    return names


def fusion(attention: bool) -> dict:
    names = {}
    for i in range(3):
        block = f"masa_adapter.1.dyhead_blocks.{i}"
        names |= layer(f"{block}.spatial_conv_offset", 27 if attention else 81, 256, 3, 3)
        for part in ("high", "mid", "low"):
            names |= layer(f"{block}.spatial_conv_{part}.conv", 256, 256, 3, 3, bias=False)
            names |= norm(f"{block}.spatial_conv_{part}.norm", 256, False)
        if attention:
            names |= layer(f"{block}.scale_attn_module.1", 1, 256, 1, 1)
            names |= layer(f"{block}.task_attn_module.conv1.conv", 64, 256, 1, 1)
            names |= layer(f"{block}.task_attn_module.conv2.conv", 1024, 64, 1, 1)
    return names


def heads(convs: bool) -> dict:
    names = layer("rpn_head.rpn_conv", 256, 256, 3, 3) | layer("rpn_head.rpn_cls", 3, 256, 1, 1)
    names |= layer("rpn_head.rpn_reg", 12, 256, 1, 1)
    names |= layer("roi_head.bbox_head.fc_cls", 2, 1024) | layer("roi_head.bbox_head.fc_reg", 4, 1024)
    names |= layer("roi_head.bbox_head.shared_fcs.0", 1024, 12544)
    if not convs:
        names |= layer("roi_head.bbox_head.shared_fcs.1", 1024, 1024)
    for i in range(4):
        if convs:
            names |= layer(f"roi_head.bbox_head.shared_convs.{i}.conv", 256, 256, 3, 3, bias=False)
            names |= norm(f"roi_head.bbox_head.shared_convs.{i}.bn", 256, True)
        names |= layer(f"track_head.embed_head.convs.{i}.conv", 256, 256, 3, 3, bias=False)
        names |= norm(f"track_head.embed_head.convs.{i}.gn", 256, False)
    names |= layer("track_head.embed_head.fcs.0", 1024, 12544) | layer("track_head.embed_head.fc_embed", 256, 1024)
    return names


def sam_vit(prefix: str, width: int, depth: int, heads_: int, everywhere: tuple[int, ...]) -> dict:
    names = {f"{prefix}.pos_embed": (1, 64, 64, width)} | layer(f"{prefix}.patch_embed.proj", width, 3, 16, 16)
    for i in range(depth):
        block, window = f"{prefix}.blocks.{i}", 127 if i in everywhere else 27
        names |= norm(f"{block}.norm1", width, False) | norm(f"{block}.norm2", width, False)
        names |= {f"{block}.attn.rel_pos_{side}": (window, width // heads_) for side in "hw"}
        names |= layer(f"{block}.attn.qkv", 3 * width, width) | layer(f"{block}.attn.proj", width, width)
        names |= layer(f"{block}.mlp.lin1", 4 * width, width) | layer(f"{block}.mlp.lin2", width, 4 * width)
    names |= layer(f"{prefix}.neck.0", 256, width, 1, 1, bias=False) | norm(f"{prefix}.neck.1", 256, False)
    return names


def plain_vit_extras(width: int) -> dict:
    names = layer("masa_adapter.0.fpn1.0", width, width, 2, 2) | norm("masa_adapter.0.fpn1.1.ln", width, False)
    return (
        names | layer("masa_adapter.0.fpn1.3", width, width, 2, 2) | layer("masa_adapter.0.fpn2.0", width, width, 2, 2)
    )


def swin(prefix: str, mmdet: bool) -> dict:
    names = layer(f"{prefix}.patch_embed.{'projection' if mmdet else 'proj'}", 128, 3, 4, 4)
    names |= norm(f"{prefix}.patch_embed.norm", 128, False)
    stages, attention = ("stages", "attn.w_msa") if mmdet else ("layers", "attn")
    first, second = ("ffn.layers.0.0", "ffn.layers.1") if mmdet else ("mlp.fc1", "mlp.fc2")
    for stage, depth in enumerate((2, 2, 18, 2)):
        width = 128 * 2**stage
        for i in range(depth):
            block = f"{prefix}.{stages}.{stage}.blocks.{i}"
            names |= norm(f"{block}.norm1", width, False) | norm(f"{block}.norm2", width, False)
            names |= {f"{block}.{attention}.relative_position_bias_table": (529, width // 32)}
            names |= {f"{block}.{attention}.relative_position_index": (144, 144)}
            names |= layer(f"{block}.{attention}.qkv", 3 * width, width) | layer(
                f"{block}.{attention}.proj", width, width
            )
            names |= layer(f"{block}.{first}", 4 * width, width) | layer(f"{block}.{second}", width, 4 * width)
        if stage < 3:
            names |= norm(f"{prefix}.{stages}.{stage}.downsample.norm", 4 * width, False)
            names |= layer(f"{prefix}.{stages}.{stage}.downsample.reduction", 2 * width, 4 * width, bias=False)
        if stage:
            names |= norm(f"{prefix}.norm{stage}", width, False)
    return names


def resnet() -> dict:
    with torch.device("meta"):
        state = torchvision.models.resnet50(weights=None).state_dict()
    return {f"backbone.{name}": tuple(one.shape) for name, one in state.items() if not name.startswith("fc.")}


def manifest(name: str) -> dict:
    if name == "masa_r50":
        return resnet() | pyramid([256, 512, 1024, 2048], True) | fusion(False) | heads(True)
    if name == "masa_gdino_swinb":
        unused = {"detector.language_model.embeddings.weight": (3, 3), "detector.neck.convs.0.conv.weight": (1,)}
        return swin("detector.backbone", True) | pyramid([256, 512, 1024], True) | fusion(False) | heads(False) | unused
    width, depth, count = (768, 12, 12) if name == "masa_sam_vitb" else (1280, 32, 16)
    everywhere = tuple(range(depth // 4 - 1, depth, depth // 4))
    vit = sam_vit("detector.backbone", width, depth, count, everywhere) | {
        "detector.mask_decoder.iou_token.weight": (1, 256)
    }
    return vit | plain_vit_extras(width) | pyramid([width] * 4, False) | fusion(True) | heads(False)


def tensors(names: dict) -> dict:
    return {name: torch.zeros(shape, device="meta") for name, shape in names.items()}


@pytest.mark.parametrize("name", ["masa_r50", "masa_sam_vitb", "masa_sam_vith", "masa_gdino_swinb"])
def test_published_names_fill_the_model_exactly(name):
    with torch.device("meta"):
        own = build_model(model_config(name)).state_dict()
    state = tensors(manifest(name))
    assert kind(state) == PUBLISHED
    translated, unknown = to_ours(state, PUBLISHED)
    assert unknown == []
    assert {key: tuple(one.shape) for key, one in translated.items()} == {
        key: tuple(one.shape) for key, one in own.items()
    }


def test_a_published_file_with_a_foreign_tensor_is_refused():
    with torch.device("meta"):
        model = build_model(model_config("masa_sam_vitb"))
    names = manifest("masa_sam_vitb")
    with pytest.raises(
        CheckpointError, match=r"unknown masa_adapter\.0\.extra\.weight; it seems to be a published MASA model"
    ):
        load_weights(model, tensors(names | {"masa_adapter.0.extra.weight": (1,)}))
    del names["track_head.embed_head.fc_embed.bias"]
    with pytest.raises(CheckpointError, match=r"missing track_head\.embedding\.bias"):
        load_weights(model, tensors(names))


@pytest.mark.parametrize(("name", "source"), [("masa_sam_vitb", SAM), ("masa_gdino_swinb", GROUNDING_DINO)])
def test_a_release_fills_the_backbone(name, source):
    if source == SAM:
        names = sam_vit("image_encoder", 768, 12, 12, (2, 5, 8, 11)) | {"mask_decoder.iou_token.weight": (1, 256)}
    else:
        names = swin("module.backbone.0", False) | {"module.transformer.level_embed": (4, 256)}
    with torch.device("meta"):
        model = build_model(model_config(name))
    own, state = model.state_dict(), tensors(names)
    assert kind(state) == source
    report = load_weights(model, state)
    assert report.kind == source
    assert not any(key.startswith("backbone.") for key in report.untouched)
    translated, unknown = to_ours(state, source)
    assert unknown == []
    backbone = {key: tuple(one.shape) for key, one in own.items() if key.startswith("backbone.")}
    assert {key: tuple(one.shape) for key, one in translated.items()} == backbone


def test_patch_merging_has_the_order_of_timm():
    """mmdetection merges cells by `nn.Unfold`; its reordered weights give the same result with timm's merging."""
    from timm.models.swin_transformer import PatchMerging

    torch.manual_seed(0)
    reduction, gain, shift = torch.randn(8, 16), torch.randn(16), torch.randn(16)
    x = torch.randn(1, 6, 4, 4)  # rows, columns, channels
    unfolded = nn.functional.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
    expected = nn.functional.layer_norm(unfolded, (16,), gain, shift) @ reduction.T
    merging = PatchMerging(4, 8)
    merging.norm.weight.data, merging.norm.bias.data = _timm_order(gain), _timm_order(shift)
    merging.reduction.weight.data = _timm_order(reduction)
    torch.testing.assert_close(merging(x).flatten(1, 2), expected)


def test_our_weights_are_saved_and_loaded(tmp_path):
    from support.masa_small import small

    from entitysam.checkpoint import read_weights, save_weights

    torch.manual_seed(0)
    first, second = build_model(small("masa_tiny")), build_model(small("masa_tiny"))
    save_weights(tmp_path / "masa.safetensors", first, small("masa_tiny"))
    report = load_weights(second, tmp_path / "masa.safetensors")
    assert report.kind == "MASA"
    assert report.untouched == []
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    config = read_weights(tmp_path / "masa.safetensors")[1]
    assert isinstance(build_model(config), type(first))


@pytest.mark.parametrize("source", ["published", "release"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(()), "wrong shape {name} []"),
        (torch.zeros(7), "wrong shape {name} [7]"),
        (torch.zeros(2, 2, 2, 8), "wrong shape {name} [2, 2, 2, 8]"),
        (torch.zeros(1).expand(10**6, 10**6), "wrong shape {name} [1000000, 1000000]"),
        (torch.zeros(2, 3).to_sparse(), "is not a dense real tensor"),
        (torch.zeros(2, dtype=torch.complex64), "is not a dense real tensor"),
    ],
    ids=["scalar", "odd", "four dimensions", "expanded", "sparse", "complex"],
)
def test_hostile_tensors_give_one_line(source, value, message):
    """In the weight whose inputs are reordered, of a published MASA and of Grounding-DINO's release."""
    ours = "backbone.trunk.layers.1.downsample.reduction.weight"
    with torch.device("meta"):
        model = build_model(model_config("masa_gdino_swinb"))
    state = tensors(manifest("masa_gdino_swinb") if source == "published" else swin("backbone.0", False))
    theirs = next(name for name in state if name.endswith("downsample.reduction.weight"))
    with pytest.raises(CheckpointError) as error:
        load_weights(model, {**state, theirs: value})
    assert message.format(name=ours) in str(error.value)
    assert "\n" not in str(error.value)
