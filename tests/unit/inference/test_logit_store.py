"""Logits on disk: what goes in comes out, nothing of it stays in memory, and it can be taken up again."""

import pytest
import torch

from entitysam.inference.logit_store import Spool

CPU = torch.device("cpu")
SHAPE = (3, 4, 5)


def logits(frame):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(frame))


def filled(folder, frames):
    spool = Spool(folder)
    spool.open(SHAPE, 0, 0)
    for frame in range(frames):
        spool.add_score(torch.full((3,), float(frame)))
        spool.add_logits(logits(frame))
    return spool


@pytest.mark.parametrize(("frames", "per_chunk"), [(1, 4), (7, 4), (8, 4), (7, 1), (7, 100)])
def test_there_and_back(tmp_path, frames, per_chunk):
    spool = filled(tmp_path / "a", frames)
    chunks = list(spool.chunks(CPU, per_chunk))
    assert all(chunk.shape[1] <= per_chunk for chunk in chunks)
    assert torch.equal(torch.cat(chunks, dim=1), torch.stack([logits(frame) for frame in range(frames)], dim=1))
    assert spool.scores().tolist() == [[float(frame)] * 3 for frame in range(frames)]


def test_reading_does_not_end_writing(tmp_path):
    spool = filled(tmp_path, 2)
    list(spool.chunks(CPU))
    spool.add_logits(logits(2))
    assert torch.cat(list(spool.chunks(CPU)), dim=1).shape[1] == 3


def test_low_precision_is_stored_as_float32(tmp_path):
    spool = Spool(tmp_path)
    spool.open(SHAPE, 0, 0)
    spool.add_logits(logits(0).bfloat16())
    spool.add_score(torch.ones(3, dtype=torch.float16))
    (chunk,) = spool.chunks(CPU)
    assert torch.equal(chunk[:, 0], logits(0).bfloat16().float())


def test_reopened_behind_a_frame_drops_what_came_after(tmp_path):
    filled(tmp_path, 5).close()
    spool = Spool(tmp_path)
    spool.open(SHAPE, 2, 3)
    spool.add_logits(logits(9))
    assert torch.equal(torch.cat(list(spool.chunks(CPU)), dim=1)[:, 2], logits(9))
    assert spool.num_frames == 3
    assert len(spool.scores()) == 3


def test_state_is_replaced_whole(tmp_path):
    spool = Spool(tmp_path)
    assert spool.load_state(CPU) is None
    for frames in (1, 2):
        spool.save_state({"frames": frames, "memories": (logits(frames),)})
    kept = spool.load_state(CPU)
    assert kept["frames"] == 2
    assert torch.equal(kept["memories"][0], logits(2))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_without_a_folder_nothing_stays():
    spool = filled(None, 3)
    folder = spool.folder
    assert folder.is_dir()
    spool.close()
    del spool
    assert not folder.exists()


def test_files_grow_by_a_record_per_frame(tmp_path):
    spool = filled(tmp_path, 6)
    spool.flush()
    assert (tmp_path / "logits.f32").stat().st_size == 6 * 4 * 3 * 4 * 5
    assert (tmp_path / "scores.f32").stat().st_size == 6 * 4 * 3
