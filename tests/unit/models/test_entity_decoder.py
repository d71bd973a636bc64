"""EntityDecoder against a naive implementation of the paper's Algorithm 1 that projects and upscales everything."""

import pytest
import torch
import torch.nn.functional as F

from entitysam.layers.mask_upscaling import MaskUpscaling
from entitysam.models.dual_encoder import ImageFeatures
from entitysam.models.entity_decoder import EntityDecoder
from entitysam.models.prompt_generator import Prompts

SIZE, CHANNELS, ENTITIES = 3, 32, 6
CELLS = SIZE * SIZE


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def features():
    stride4 = randn(CHANNELS, 4 * SIZE, 4 * SIZE, seed=1)
    return ImageFeatures(stride4, randn(CHANNELS, 2 * SIZE, 2 * SIZE, seed=2), randn(CELLS, CHANNELS, seed=3), None)


def prompts():
    return Prompts(
        randn(ENTITIES, 2, CHANNELS, seed=4), randn(CHANNELS, seed=5), randn(ENTITIES, 2), torch.zeros(ENTITIES, 2)
    )


def decoder(**options):
    torch.manual_seed(0)
    part = EntityDecoder(ENTITIES, CHANNELS, depth=2, heads=4, hidden=16, **options)
    for parameter in part.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return part


def naive_upscaling(part, cells, vectors, given):
    """Transposed convolutions over whole maps, then one dot product per pixel."""
    x = cells.transpose(1, 2).unflatten(2, (SIZE, SIZE))
    x = part.upscale1(x) + part.conv_s1(given.stride8[None])
    x = F.layer_norm(x.movedim(1, -1), x.shape[1:2], part.norm.weight, part.norm.bias, 1e-6).movedim(-1, 1)
    x = F.gelu(part.upscale2(F.gelu(x)) + part.conv_s0(given.stride4[None]))
    return (x * vectors[:, :, None, None]).sum(1)


def naive_decoder(part, embedding, position, sparse_groups, dense, given):
    """4Q tokens in one list; regrouped for the image attentions so that batch element q holds tokens q, Q + q, ..."""
    place = torch.cat([part.mask_queries.weight, part.iou_queries.weight, *sparse_groups])
    tokens, cells = place, embedding + dense

    def regroup(flat):
        return torch.stack([flat.view(-1, ENTITIES, CHANNELS)[:, q] for q in range(ENTITIES)])

    def ungroup(grouped):
        return torch.cat([grouped[:, k] for k in range(grouped.shape[1])])

    for depth, layer in enumerate(part.layers):
        if depth == 0:
            tokens = layer.self_attn(tokens[None], tokens[None], tokens[None])[0]
        else:
            placed = (tokens + place)[None]
            tokens = tokens + layer.self_attn(placed, placed, tokens[None])[0]
        own, own_place = regroup(layer.norm1(tokens)), regroup(place)
        own = layer.norm2(own + layer.cross_attn_token_to_image(own + own_place, cells + position, cells))
        own = layer.norm3(own + layer.mlp(own))
        cells = layer.norm4(cells + layer.cross_attn_image_to_token(cells + position, own + own_place, own))
        tokens = ungroup(own)
    own = regroup(tokens)
    seen = part.final_attn_token_to_image(own + regroup(place), cells + position, cells)
    own = part.norm_final_attn(own + seen)
    masks = naive_upscaling(part.mask_upscaling, cells, part.mask_head(own[:, 0]), given)
    return masks, part.iou_head(own[:, 1])[:, 0]


@pytest.mark.parametrize("group", [1, 4, 10])
def test_upscaling_equals_transposed_convolutions(monkeypatch, group):
    torch.manual_seed(0)
    part = MaskUpscaling(CHANNELS)
    monkeypatch.setattr(part, "group", group)
    cells, vectors = randn(ENTITIES, CELLS, CHANNELS), randn(ENTITIES, CHANNELS // 8)
    expected = naive_upscaling(part, cells, vectors, features())
    maps = (features().stride8, features().stride4)
    torch.testing.assert_close(part(cells, vectors[:, None], *maps)[:, 0], expected, rtol=1e-4, atol=1e-5)
    both = part(cells, torch.stack([-vectors, vectors], dim=1), *maps)
    torch.testing.assert_close(both, torch.stack([-expected, expected], dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own_prompts", [False, True], ids=["reference", "paper"])
@pytest.mark.parametrize("maps", [1, ENTITIES], ids=["one map for all", "own maps"])
def test_decoder_equals_the_naive_one(own_prompts, maps):
    part, given = decoder(own_prompts=own_prompts), prompts()
    embedding, position = randn(maps, CELLS, CHANNELS, seed=6), randn(CELLS, CHANNELS, seed=7)
    if own_prompts:
        groups = [given.sparse[:, 0], given.sparse[:, 1]]
    else:  # q0 point, q0 padding, q1 point, ... cut in the middle
        listed = [given.sparse[q, kind] for q in range(ENTITIES) for kind in range(2)]
        groups = [torch.stack(listed[:ENTITIES]), torch.stack(listed[ENTITIES:])]
    everyone = embedding.expand(ENTITIES, -1, -1)
    masks, iou = naive_decoder(part, everyone, position, groups, given.dense, features())
    ours = part(embedding, position, given, features())
    torch.testing.assert_close(ours.mask_logits, masks, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.iou, iou, rtol=1e-4, atol=1e-5)
    assert ours.entity_logits is None
    assert ours.layer_masks is None
    assert ours.mask_logits.shape == (ENTITIES, 4 * SIZE, 4 * SIZE)


def test_entities_receive_prompt_tokens_of_other_entities():
    """Quirk 1: entity q receives tokens of entities q // 2 and (Q + q) // 2."""
    sparse = torch.arange(ENTITIES).float()[:, None, None].expand(-1, 2, CHANNELS)
    given = Prompts(sparse, torch.zeros(CHANNELS), torch.zeros(ENTITIES, 2), torch.zeros(ENTITIES, 2))
    tokens = decoder()._tokens(given)
    assert tokens[2, :, 0].tolist() == [q // 2 for q in range(ENTITIES)]
    assert tokens[3, :, 0].tolist() == [(ENTITIES + q) // 2 for q in range(ENTITIES)]
    own = decoder(own_prompts=True)._tokens(given)
    assert own[2, :, 0].tolist() == own[3, :, 0].tolist() == list(range(ENTITIES))


def test_the_first_layer_is_initialised_near_the_identity():
    """It has no residual path: with random weights every token would become nearly the mean of all."""
    torch.manual_seed(0)
    layer = EntityDecoder(ENTITIES, CHANNELS, depth=2, heads=4, hidden=16).layers[0]
    tokens = randn(4, ENTITIES, CHANNELS)

    def similarity(layer):
        after = layer.self_attend(tokens.flatten(0, 1), None)
        return F.normalize(tokens.flatten(0, 1), dim=1) @ F.normalize(after, dim=1).T

    similar = similarity(layer)
    assert similar.argmax(1).tolist() == list(range(4 * ENTITIES))
    torch.nn.init.xavier_uniform_(layer.self_attn.q_proj.weight)
    assert similar.diag().mean() > similarity(layer).diag().mean() + 0.2


def test_shared_queries_drop_the_second_table():
    part = decoder(queries="shared")
    assert not any(name.startswith("iou_queries") for name, _ in part.named_parameters())
    assert part._tokens(prompts()).shape == (3, ENTITIES, CHANNELS)
    output = part(randn(1, CELLS, CHANNELS), randn(CELLS, CHANNELS), prompts(), features())
    assert output.mask_logits.shape == (ENTITIES, 4 * SIZE, 4 * SIZE)
    assert output.iou.shape == (ENTITIES,)


def test_decoder_gives_entity_logits_where_there_are_no_prompts():
    part = decoder(predicts_entity=True)
    output = part(randn(1, CELLS, CHANNELS), randn(CELLS, CHANNELS), None, features())
    assert output.entity_logits.shape == (ENTITIES, 2)


def test_unknown_kind_of_queries():
    with pytest.raises(ValueError, match=r"entity_decoder.queries: 'separate' or 'shared', not 'none'"):
        decoder(queries="none")
