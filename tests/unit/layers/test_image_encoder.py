import pytest
import timm
import torch

from entitysam.layers.image_encoder import HieraBlock, HieraEncoder

SMALL = {"embed_dim": 16, "stages": [1, 2, 3, 2], "global_att_blocks": [4]}


# 224 has no padding; at 64 the windows of 14 are larger than the map of 4 cells; at 256 a window of 14 is followed by 2 cells.
@pytest.mark.parametrize("size", [64, 224, 256])
def test_windows_without_their_padding_give_what_timm_gives_with_it(size):
    torch.manual_seed(0)
    encoder = HieraEncoder("sam2_hiera_small", channels=16, trunk_args=SMALL).eval()
    for parameter in encoder.parameters():
        if parameter.ndim == 1:  # biases that matter: they are the keys and values of the padding
            torch.nn.init.normal_(parameter)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in SMALL.items()}
    public = timm.create_model("sam2_hiera_small", num_classes=0, **given).eval()
    del public.head
    public.load_state_dict(encoder.trunk.state_dict())
    image = torch.randn(2, 3, size, size)
    with torch.no_grad():
        found = encoder.trunk.forward_intermediates(image, intermediates_only=True)
        expected = public.forward_intermediates(image, intermediates_only=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_padding_of_windows_has_gradients():
    block = HieraEncoder("sam2_hiera_small", channels=16, trunk_args=SMALL).trunk.blocks[-1]
    assert isinstance(block, HieraBlock)
    assert block.window == (7, 7)
    x = torch.randn(1, 8, 8, 128, dtype=torch.float64, requires_grad=True)
    block.double()(x).sum().backward()
    key_bias = block.attn.qkv.bias.grad[128:256]
    assert float(key_bias.abs().max()) > 0  # 0 without padding: it would add the same to all scores of a row
