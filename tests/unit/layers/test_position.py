"""Position codes equal their formulas, written out cell by cell."""

import math

import numpy as np
import pytest
import torch

from entitysam.layers.position import RandomFourierPosition, axial_rotation, position_table, rotate, sine_position
from entitysam.layers.prompt_encoder import PromptEncoder

LIKE = torch.zeros(1)


@pytest.mark.parametrize(("size", "channels"), [(4, 8), (5, 64)])
def test_sine_code(size, channels):
    code = sine_position(size, channels, LIKE).view(size, size, channels)
    half = channels // 2
    for y in range(size):
        for x in range(size):
            for c in range(channels):
                coordinate = (y if c < half else x) + 1
                angle = 2 * math.pi * coordinate / (size + 1e-6) / 10000 ** (2 * ((c % half) // 2) / half)
                assert code[y, x, c] == pytest.approx(math.sin(angle) if c % 2 == 0 else math.cos(angle), abs=1e-5)


def test_position_table_starts_as_waves_over_columns_and_rows():
    size, channels = 5, 16
    table = position_table(size, channels).view(size, size, channels)
    turns = [0.5, 0.5 + 3.5 / 3, 0.5 + 7 / 3, 4.0]
    for y in range(size):
        for x in range(size):
            expected = []
            for place in (x, y):
                angles = [2 * math.pi * turn * place / (size - 1) for turn in turns]
                expected += [0.5 * math.sin(a) for a in angles] + [0.5 * math.cos(a) for a in angles]
            np.testing.assert_allclose(table[y, x], expected, atol=1e-5)


def test_sine_code_takes_dtype_and_device_of_its_example():
    assert sine_position(2, 8, torch.zeros(1, dtype=torch.bfloat16)).dtype is torch.bfloat16
    assert sine_position(2, 8, torch.zeros(1, device="meta")).device.type == "meta"


def test_fourier_code_of_points():
    torch.manual_seed(0)
    position = RandomFourierPosition(8)
    points = torch.tensor([[0.0, 0.0], [0.25, 0.75], [1.0, 0.5]])
    frequencies = position.frequencies.numpy().astype(np.float64)
    for (x, y), code in zip(points.tolist(), position(points)):
        angle = 2 * math.pi * ((2 * x - 1) * frequencies[0] + (2 * y - 1) * frequencies[1])
        np.testing.assert_allclose(code, np.concatenate([np.sin(angle), np.cos(angle)]), atol=1e-5)


def test_fourier_grid_is_the_code_of_cell_centres():
    torch.manual_seed(0)
    position = RandomFourierPosition(8)
    grid = position.grid(3).view(3, 3, 8)
    for y in range(3):
        for x in range(3):
            expected = position(torch.tensor([(x + 0.5) / 3, (y + 0.5) / 3]))
            torch.testing.assert_close(grid[y, x], expected)


def test_points_are_encoded_at_pixel_centres_with_a_padding_token():
    torch.manual_seed(0)
    encoder = PromptEncoder(8)
    sparse = encoder(torch.tensor([[7.5, 3.5], [31.0, 0.0]]), image_size=32)
    code = encoder.position(torch.tensor([[8 / 32, 4 / 32], [31.5 / 32, 0.5 / 32]]))
    torch.testing.assert_close(sparse[:, 0], code + encoder.positive.weight)
    assert torch.equal(sparse[:, 1], encoder.padding.weight.expand(2, -1))


def test_rotation_is_multiplication_by_complex_numbers():
    size, channels = 3, 16
    cosine, sine = axial_rotation(size, channels, LIKE)
    x = torch.randn(size * size, channels, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, cosine, sine)
    for cell in range(size * size):
        for pair in range(channels // 2):
            along = cell % size if pair < channels // 4 else cell // size
            angle = along / 10000 ** (4 * (pair % (channels // 4)) / channels)
            expected = complex(x[cell, 2 * pair], x[cell, 2 * pair + 1]) * complex(math.cos(angle), math.sin(angle))
            assert turned[cell, 2 * pair] == pytest.approx(expected.real, abs=1e-5)
            assert turned[cell, 2 * pair + 1] == pytest.approx(expected.imag, abs=1e-5)
