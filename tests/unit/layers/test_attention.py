"""Attention without projection of the image cells equals attention with it."""

import pytest
import torch
import torch.nn.functional as F

from entitysam.layers import attention
from entitysam.layers.attention import Attention, attend

GENERATOR = torch.Generator().manual_seed(0)


def randn(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def projected(part, query, key, value):
    """Textbook multi-head attention: every token and cell is projected, head by head."""
    q, k, v = part.q_proj(query), part.k_proj(key), part.v_proj(value)
    width = q.shape[-1] // part.heads
    heads = []
    for h in range(part.heads):
        some = slice(h * width, (h + 1) * width)
        scores = q[..., some] @ k[..., some].transpose(-1, -2) / width**0.5
        heads.append(scores.softmax(-1) @ v[..., some])
    return part.out_proj(torch.cat(heads, dim=-1))


@pytest.fixture
def part():
    torch.manual_seed(1)
    part = Attention(16, heads=4, width=8).double()
    for parameter in part.parameters():
        if parameter.ndim == 1:  # biases are initialised with 0, which would hide errors in their use
            torch.nn.init.normal_(parameter)
    return part


def test_plain(part):
    query, key, value = randn(2, 5, 16), randn(2, 7, 16), randn(2, 7, 16)
    torch.testing.assert_close(part(query, key, value), projected(part, query, key, value))


@pytest.mark.parametrize("maps", [1, 3], ids=["one map for all", "own maps"])
def test_tokens_to_cells(part, maps):
    tokens, cells_key, cells = randn(3, 4, 16), randn(maps, 25, 16), randn(maps, 25, 16)
    expected = projected(part, tokens, cells_key.expand(3, -1, -1), cells.expand(3, -1, -1))
    torch.testing.assert_close(part.tokens_to_cells(tokens, cells_key, cells), expected)


@pytest.mark.parametrize("maps", [1, 3], ids=["one map for all", "own maps"])
def test_cells_to_tokens(part, maps):
    cells, tokens_key, tokens = randn(maps, 25, 16), randn(3, 4, 16), randn(3, 4, 16)
    expected = projected(part, cells.expand(3, -1, -1), tokens_key, tokens)
    torch.testing.assert_close(part.cells_to_tokens(cells, tokens_key, tokens), expected)


@pytest.mark.parametrize("method", ["tokens_to_cells", "cells_to_tokens"])
def test_gradients_are_those_of_projected_attention(part, method):
    few, key_side, many = randn(3, 4, 16), randn(3, 9, 16), randn(3, 9, 16)
    inputs = (few, key_side, many) if method == "tokens_to_cells" else (many, few, randn(3, 4, 16))
    ours = torch.autograd.grad(getattr(part, method)(*inputs).sin().sum(), list(part.parameters()))
    expected = torch.autograd.grad(projected(part, *inputs).sin().sum(), list(part.parameters()))
    for got, wanted in zip(ours, expected):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("block", [1, 40, 100, 333, 1 << 21])
@pytest.mark.parametrize(("key_batch", "value_batch"), [(5, 5), (1, 1), (5, 1), (1, 5)])
def test_attend_in_blocks(monkeypatch, block, key_batch, value_batch):
    monkeypatch.setattr(attention, "CPU_SCORE_BLOCK", block)
    query, key, value = randn(5, 7, 8), randn(key_batch, 20, 8), randn(value_batch, 20, 3)
    scores = query @ key.transpose(1, 2) / 8**0.5
    torch.testing.assert_close(attend(query, key, value), scores.softmax(-1) @ value)


def test_attend_equals_the_fused_kernel():
    query, key, value = (randn(2, n, 8).float() for n in (6, 9, 9))
    torch.testing.assert_close(attend(query, key, value), F.scaled_dot_product_attention(query, key, value))


def test_attend_keeps_low_precision_values():
    query, key = randn(2, 6, 8).float(), randn(2, 9, 8).bfloat16()
    assert attend(query, key, randn(2, 9, 4).bfloat16()).dtype is torch.bfloat16
