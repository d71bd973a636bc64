"""Memory attention, encoder and bank against naive implementations."""

import pytest
import torch
import torch.nn.functional as F

from entitysam.layers.memory_attention import MemoryAttention
from entitysam.layers.memory_encoder import MemoryEncoder
from entitysam.layers.position import sine_position
from entitysam.models.memory import Memory, NoMemory

SIZE, CHANNELS, MEMORY, ENTITIES = 4, 16, 8, 3
CELLS = SIZE * SIZE


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def complex_rope(x, grids=1):
    """Axial RoPE on neighbouring channel pairs as complex numbers: x [B, grids * hw, C]."""
    channels = x.shape[-1]
    frequency = 10000.0 ** (-torch.arange(0, channels, 4) / channels)
    cell = torch.arange(CELLS)
    angle = torch.cat([(cell % SIZE)[:, None] * frequency, (cell // SIZE)[:, None] * frequency], dim=1)
    turn = torch.polar(torch.ones_like(angle), angle).repeat(grids, 1)
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)


def naive_attention(part, x, key_input, value_input):
    """Single-head attention in SAM 2's own channel order, with every value projected."""
    grids = key_input.shape[1] // CELLS
    query, key = complex_rope(part.q_proj(x)), complex_rope(part.k_proj(key_input), grids)
    value = part.v_proj(value_input)
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    return part.out_proj(scores.softmax(-1) @ value)


def naive_memory_attention(part, cells, memory, position):
    x = (cells + 0.1 * sine_position(SIZE, CHANNELS, cells)).expand(len(memory), -1, -1)
    for layer in part.layers:
        normed = layer.norm1(x)
        x = x + naive_attention(layer.self_attn, normed, normed, normed)
        x = x + naive_attention(layer.cross_attn_image, layer.norm2(x), memory + position, memory)
        x = x + layer.linear2(F.relu(layer.linear1(layer.norm3(x))))
    return part.norm(x)


@pytest.fixture
def memory():
    torch.manual_seed(0)
    return Memory(CHANNELS, MEMORY, num_memories=3, depth=2, hidden=32, mask_widths=[2, 4, 8, 16]).eval()


@pytest.mark.parametrize("group", [1, 2, 10])
@pytest.mark.parametrize("grids", [1, 3])
def test_attention_equals_the_naive_one(monkeypatch, group, grids):
    torch.manual_seed(0)
    part = MemoryAttention(CHANNELS, MEMORY, depth=2, hidden=32)
    monkeypatch.setattr(part, "group", group)
    cells, stored = randn(CELLS, CHANNELS), randn(ENTITIES, grids * CELLS, MEMORY, seed=1)
    position = randn(grids * CELLS, MEMORY, seed=2)
    expected = naive_memory_attention(part, cells, stored, position)
    torch.testing.assert_close(part(cells, stored, position), expected, rtol=1e-5, atol=1e-5)


def test_temporal_code_counts_steps_back(memory):
    stored = tuple(randn(ENTITIES, CELLS, MEMORY, seed=s) for s in range(3))  # newest first
    spatial = sine_position(SIZE, MEMORY, stored[0])
    position = torch.cat([spatial + memory.temporal_code[step, 0, 0] for step in range(3)])
    cells = randn(CELLS, CHANNELS, seed=9)
    expected = naive_memory_attention(memory.attention, cells, torch.cat(stored, dim=1), position)
    torch.testing.assert_close(memory.read(cells, stored), expected, rtol=1e-5, atol=1e-5)


def test_first_frame_adds_the_no_memory_code_and_attends_to_nothing(memory):
    cells = randn(CELLS, CHANNELS)
    torch.testing.assert_close(memory.read(cells, ()), (cells + memory.no_memory_embed[0, 0])[None])


def test_bank_keeps_the_newest(memory):
    memories = ()
    written = []
    for frame in range(5):
        before = memories
        memories = memory.write(randn(CELLS, CHANNELS, seed=frame), randn(ENTITIES, 16, 16, seed=frame), memories)
        written.insert(0, memories[0])
        assert all(a is b for a, b in zip(before, written[1:]))  # memories are not changed
    assert len(memories) == 3
    assert all(a is b for a, b in zip(memories, written))
    assert memories[0].shape == (ENTITIES, CELLS, MEMORY)


def test_store_dtype():
    part = Memory(CHANNELS, MEMORY, 2, 1, 8, [2, 4, 8, 16], store_dtype="bfloat16")
    stored = part.write(randn(CELLS, CHANNELS), randn(ENTITIES, 16, 16), ())
    assert stored[0].dtype is torch.bfloat16
    assert part.read(randn(CELLS, CHANNELS), stored).dtype is torch.float32


@pytest.mark.parametrize("group", [1, 2, 10])
def test_encoder_equals_plain_convolutions(monkeypatch, group):
    torch.manual_seed(0)
    encoder = MemoryEncoder(CHANNELS, MEMORY, mask_widths=[2, 4, 8, 16])
    for block in encoder.fuser:
        torch.nn.init.normal_(block.gamma)
    monkeypatch.setattr(encoder, "group", group)
    feature, mask_logits = randn(1, CHANNELS, SIZE, SIZE), 5 * randn(ENTITIES, 16, 16)
    x = F.interpolate(mask_logits[:, None], scale_factor=4, mode="bilinear", align_corners=False).sigmoid() * 20 - 10
    for layer in encoder.mask_downsampler.encoder:
        if isinstance(layer, torch.nn.LayerNorm):
            mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
            x = (x - mean) / (variance + 1e-6).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]
        else:
            x = layer(x)
    x = x + encoder.pix_feat_proj(feature)
    for block in encoder.fuser:
        y = F.layer_norm(block.dwconv(x).movedim(1, -1), (CHANNELS,), block.norm.weight, block.norm.bias, 1e-6)
        y = block.pwconv2(F.gelu(block.pwconv1(y))) * block.gamma
        x = x + y.movedim(-1, 1)
    expected = encoder.out_proj(x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder(feature, mask_logits), expected, rtol=1e-4, atol=1e-4)


def test_no_memory_keeps_an_empty_bank():
    part = NoMemory(CHANNELS)
    cells = randn(CELLS, CHANNELS)
    assert part.write(cells, randn(ENTITIES, 16, 16), ()) == ()
    assert part.read(cells, ()).shape == (1, CELLS, CHANNELS)


def test_dormant_entities_get_the_map_of_an_empty_bank(memory):
    cells, bank = (
        randn(CELLS, CHANNELS),
        (randn(ENTITIES, CELLS, MEMORY, seed=1), randn(ENTITIES, CELLS, MEMORY, seed=2)),
    )
    active = torch.tensor([0, 2])
    conditioned = memory.read(cells, bank, active)
    torch.testing.assert_close(conditioned[active], memory.read(cells, bank)[active])
    torch.testing.assert_close(conditioned[1:2], memory.read(cells, ()))
    torch.testing.assert_close(memory.read(cells, bank, active[:0]), memory.read(cells, ()))


def test_only_active_entities_are_written(memory):
    cells, masks = randn(CELLS, CHANNELS), randn(ENTITIES, SIZE * 4, SIZE * 4, seed=1)
    bank = (randn(ENTITIES, CELLS, MEMORY, seed=2),)
    everything = memory.write(cells, masks, bank)[0]
    written = memory.write(cells, masks, bank, torch.tensor([0, 2]), torch.tensor([False, False, True]))
    torch.testing.assert_close(written[0][[0, 2]], everything[[0, 2]])
    assert not written[0][1].any()
    torch.testing.assert_close(written[1][0], bank[0][0])
    torch.testing.assert_close(written[1][2], everything[2])  # entity 2 woke up: the bank begins with this frame
    assert (bank[0] == randn(ENTITIES, CELLS, MEMORY, seed=2)).all()  # the given bank stays as it is


def test_pooled_memory_equals_naive_means(memory):
    """Means over 2 x 2 cells, each key turned by its mean coordinates."""
    cells, bank = (
        randn(CELLS, CHANNELS),
        (randn(ENTITIES, CELLS, MEMORY, seed=1), randn(ENTITIES, CELLS, MEMORY, seed=2)),
    )
    groups = [[4 * y + x for y in rows for x in columns] for rows in ((0, 1), (2, 3)) for columns in ((0, 1), (2, 3))]
    position = sine_position(SIZE, MEMORY, cells)
    keys, values, angles = [], [], []
    frequency = 10000.0 ** (-torch.arange(0, CHANNELS, 4) / CHANNELS)
    for age, one in enumerate(bank):
        for group in groups:
            values.append(one[:, group].mean(1))
            keys.append(values[-1] + position[group].mean(0) + memory.temporal_code[age, 0, 0])
            x = sum(cell % SIZE for cell in group) / 4
            y = sum(cell // SIZE for cell in group) / 4
            angles.append(torch.cat([x * frequency, y * frequency]))
    keys, values = torch.stack(keys, dim=1), torch.stack(values, dim=1)
    turn = torch.polar(torch.ones(len(angles), CHANNELS // 2), torch.stack(angles))
    part = memory.attention
    x = (cells + 0.1 * sine_position(SIZE, CHANNELS, cells)).expand(ENTITIES, -1, -1)
    for layer in part.layers:
        normed = layer.norm1(x)
        x = x + naive_attention(layer.self_attn, normed, normed, normed)
        cross = layer.cross_attn_image
        key = torch.view_as_complex(cross.k_proj(keys).unflatten(-1, (-1, 2)).contiguous()) * turn
        scores = complex_rope(cross.q_proj(layer.norm2(x))) @ torch.view_as_real(key).flatten(-2).transpose(1, 2)
        x = x + cross.out_proj((scores / CHANNELS**0.5).softmax(-1) @ cross.v_proj(values))
        x = x + layer.linear2(F.relu(layer.linear1(layer.norm3(x))))
    torch.testing.assert_close(memory.read(cells, bank, pool=2), part.norm(x), atol=1e-5, rtol=1e-4)


def test_padded_bank_equals_a_shorter_one(memory):
    cells, bank = randn(CELLS, CHANNELS), tuple(randn(ENTITIES, CELLS, MEMORY, seed=s) for s in range(3))
    read = memory.read(cells, bank, filled=torch.tensor([True, True, False]))
    torch.testing.assert_close(read, memory.read(cells, bank[:2]), rtol=1e-5, atol=1e-5)
