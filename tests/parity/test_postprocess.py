"""The panoptic merge gives the recorded maps of the published post-processing, pixel for pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch

from entitysam.inference import panoptic

CASES = sorted((Path(__file__).parents[1] / "golden" / "postprocess").glob("case*.npz"))


def load(path):
    case = np.load(path)
    return torch.from_numpy(case["mask_logits"]).float(), torch.from_numpy(case["scores"]), case


def test_all_cases_exist():
    assert len(CASES) == 8


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_merge(path):
    mask_logits, scores, case = load(path)
    ids, queries = panoptic.merge(mask_logits, scores, tuple(case["out_size"].tolist()))
    assert ids.dtype == np.int32
    assert queries.dtype == np.int64
    np.testing.assert_array_equal(queries, case["query_of_segment"])
    np.testing.assert_array_equal(ids, case["panoptic"])


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
@pytest.mark.parametrize("frames_per_chunk", [1, 3, 4])
def test_merge_in_chunks(path, frames_per_chunk):
    mask_logits, scores, case = load(path)
    merger = panoptic.PanopticMerge(scores, tuple(case["out_size"].tolist()))
    decision = merger.decide(lambda: mask_logits.split(frames_per_chunk, dim=1))
    maps = merger.maps(lambda: mask_logits.split(frames_per_chunk, dim=1), decision)
    np.testing.assert_array_equal(decision.queries, case["query_of_segment"])
    np.testing.assert_array_equal(np.stack(list(maps)), case["panoptic"])
