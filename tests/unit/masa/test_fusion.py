"""Pyramid and fusion: against torchvision's kernel, and against the published block written out."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from entitysam.masa.adapter import FeaturePyramid, PlainViTPyramid
from entitysam.masa.fusion import DeformableFusion, DynamicReLU, FusionBlock, deformable_convolution, fit
from entitysam.registry import ConfigError


@pytest.mark.parametrize(("stride", "size"), [(1, (9, 11)), (2, (5, 6))])
def test_deformable_convolution_is_torchvisions(stride, size):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 9, 11, dtype=torch.float64, requires_grad=True)
    offsets = (torch.randn(2, 18, *size, dtype=torch.float64) * 3).requires_grad_()
    masks = torch.rand(2, 9, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 8, 3, 3, dtype=torch.float64, requires_grad=True)
    ours = deformable_convolution(x, offsets, masks, weight, stride)
    theirs = deform_conv2d(x, offsets, weight, None, stride, 1, 1, masks)
    torch.testing.assert_close(ours, theirs)
    leaves = (x, offsets, masks, weight)
    for a, b in zip(torch.autograd.grad(ours.sin().sum(), leaves), torch.autograd.grad(theirs.sin().sum(), leaves)):
        torch.testing.assert_close(a, b)


def test_untrained_offsets_make_it_half_a_convolution():
    torch.manual_seed(0)
    block = FusionBlock(16, attention=False, shared_geometry=True, coarser="pooled")
    x = torch.randn(1, 16, 6, 6)
    expected = block.same.norm(F.conv2d(x, block.same.conv.weight, padding=1) / 2)
    torch.testing.assert_close(block([x])[0], expected)


def written_out(block: FusionBlock, maps, sets):
    """The published block (DyHead of the SAM variants for one set, the other fusion for three), step by step."""
    outputs = []
    for level, here in enumerate(maps):
        raw = block.geometry(here)
        offsets, masks = raw[:, : sets * 18].split(18, 1), raw[:, sets * 18 :].sigmoid().split(9, 1)
        conv = lambda part, x, o, m: part.norm(  # noqa: E731
            deform_conv2d(x, o.contiguous(), part.conv.weight, None, part.conv.stride, 1, 1, m.contiguous())
        )
        found = [conv(block.same, here, offsets[0], masks[0])]
        if level > 0:
            found.append(conv(block.finer, maps[level - 1], offsets[1 % sets], masks[1 % sets]))
        if level < len(maps) - 1:
            above = maps[level + 1]
            h, w = above.shape[-2:]
            o, m = offsets[2 % sets], masks[2 % sets]
            if sets == 1:
                o, m = o[:, :, :h, :w], m[:, :, :h, :w]
            else:  # a kernel that believes the strides of the smaller grid reads the first values in memory
                o = torch.stack([one.reshape(-1)[: 18 * h * w].reshape(18, h, w) for one in o])
                m = torch.stack([one.reshape(-1)[: 9 * h * w].reshape(9, h, w) for one in m])
            found.append(
                F.interpolate(
                    conv(block.coarser, above, o, m), size=here.shape[-2:], mode="bilinear", align_corners=True
                )
            )
        if block.scale_attention is not None:
            found = [
                one * F.relu(block.scale_attention(one.mean((2, 3), True))).add(3).clamp(0, 6).div(6) for one in found
            ]
        fused = sum(found) / len(found)
        if block.task_attention is not None:
            pooled = block.task_attention.conv2(F.relu(block.task_attention.conv1(fused.mean((2, 3), True))))
            a1, b1, a2, b2 = (pooled.add(3).clamp(0, 6).div(6) - 0.5).split(fused.shape[1], 1)
            fused = torch.max(fused * (a1 * 2 + 1) + b1, fused * (a2 * 2) + b2)
        outputs.append(fused)
    return outputs


@pytest.mark.parametrize(("attention", "shared", "coarser"), [(True, True, "cropped"), (False, False, "packed")])
def test_block_is_the_published_one(attention, shared, coarser):
    torch.manual_seed(0)
    block = FusionBlock(16, attention, shared, coarser)
    torch.nn.init.normal_(block.geometry.weight, std=0.1)
    maps = [torch.randn(2, 16, 9, 12), torch.randn(2, 16, 5, 6), torch.randn(2, 16, 3, 3)]
    for ours, expected in zip(block(maps), written_out(block, maps, 1 if shared else 3)):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_offsets_for_the_coarser_grid():
    values = torch.arange(16.0).view(1, 1, 4, 4)
    above = torch.zeros(1, 3, 2, 2)
    assert fit(values, above, "pooled").flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert fit(values, above, "cropped").flatten().tolist() == [0, 1, 4, 5]
    assert fit(values, above, "packed").flatten().tolist() == [0, 1, 2, 3]


def test_dynamic_relu_begins_as_relu():
    layer = DynamicReLU(8)
    torch.nn.init.zeros_(layer.conv2.weight)
    torch.nn.init.zeros_(layer.conv2.bias)
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(layer(x), x.relu())


def test_pyramid_by_hand():
    pyramid = FeaturePyramid([1, 1], 1, num_levels=4)
    for layers, kernel in ((pyramid.lateral, 1), (pyramid.output, 3)):
        for layer in layers:
            layer.conv.weight.data.zero_()
            layer.conv.weight.data[0, 0, kernel // 2, kernel // 2] = 1
    fine, coarse = torch.arange(16.0).view(1, 1, 4, 4), torch.tensor([[[[100.0, 200], [300, 400]]]])
    levels = pyramid([fine, coarse])
    enlarged = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(levels[0], fine + enlarged)
    torch.testing.assert_close(levels[1], coarse)
    assert levels[2].flatten().tolist() == [100] == levels[3].flatten().tolist()


def test_plain_vit_becomes_a_pyramid():
    torch.manual_seed(0)
    maps = [torch.randn(1, 8, 6, 4) for _ in range(4)]
    levels = PlainViTPyramid([8] * 4, 16)(maps)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (16, 24, 16),
        (16, 12, 8),
        (16, 6, 4),
        (16, 3, 2),
        (16, 2, 1),
    ]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: DeformableFusion(16, coarser="middle"), "coarser 'middle'"),
        (lambda: DeformableFusion(24), "multiple of 16"),
        (lambda: FeaturePyramid([8, 8], 48, norm="group"), "32 groups"),
        (lambda: FeaturePyramid([8, 8], 64, norm="layer"), "norm 'layer'"),
        (lambda: FeaturePyramid([8, 8], 64, num_levels=1), "num_levels 1"),
        (lambda: PlainViTPyramid([8, 8, 16, 16], 64), "four maps of one width"),
    ],
)
def test_what_cannot_be_built(build, words):
    with pytest.raises(ConfigError, match=words):
        build()
