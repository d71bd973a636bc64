"""Mask logits on disk: float16 in and out, free space, full disks."""

import shutil

import pytest
import torch

from entitysam.inference.logit_store import LogitStore
from entitysam.io import record_store
from entitysam.io.files import OutputError
from entitysam.io.record_store import RecordStore

CPU = torch.device("cpu")
SHAPE = (3, 4, 5)


def logits(frame):
    return 10 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(frame))


def filled(folder, frames):
    store = LogitStore(RecordStore(folder) if folder else None)
    for frame in range(frames):
        store.write(frame, logits(frame))
    return store


@pytest.mark.parametrize(("frames", "per_chunk"), [(1, 4), (7, 4), (8, 4), (7, 1), (7, 100)])
def test_chunks_are_the_frames_in_order(tmp_path, frames, per_chunk):
    chunks = list(filled(tmp_path, frames).chunks(frames, CPU, per_chunk))
    assert all(chunk.shape[1] <= per_chunk for chunk in chunks)
    expected = torch.stack([logits(frame).half().float() for frame in range(frames)], dim=1)
    assert torch.equal(torch.cat(chunks, dim=1), expected)
    assert chunks[0].dtype == torch.float32


def test_rounding_keeps_signs_and_eleven_bits(tmp_path):
    store = filled(tmp_path, 1)
    values = torch.cat([logits(0).flatten(), torch.tensor([1e-4, -1e-4, 1e6, -1e6])]).view(1, 8, 8)
    store.write(0, values)
    kept = store.read(0).float()
    assert torch.equal(kept.sign(), values.sign())
    inside = values.abs() < 6e4
    assert ((kept - values)[inside].abs() <= values[inside].abs() * 2**-11).all()
    assert kept.abs().max() == 65504  # the largest float16, not infinity


def test_bfloat16_is_stored_exactly(tmp_path):
    store = LogitStore(RecordStore(tmp_path))
    store.write(0, logits(0).bfloat16())
    assert torch.equal(store.read(0).float(), logits(0).bfloat16().float())


def test_a_frame_takes_two_bytes_per_logit(tmp_path):
    filled(tmp_path, 1)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.rec")) == record_store.HEADER.size + 2 * 3 * 4 * 5


def test_too_little_space_is_refused_before_the_run(tmp_path, monkeypatch):
    store = filled(tmp_path, 1)
    store.check_space(1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 100, 4000))
    store.check_space(20)
    with pytest.raises(OutputError) as error:
        store.check_space(1000)
    assert str(tmp_path) in str(error.value)
    assert "1000 frames need" in str(error.value)
    with pytest.raises(OutputError, match="set TMPDIR to a larger disk"):
        filled(None, 1).check_space(1000)


def test_a_damaged_frame_is_an_error(tmp_path):
    store = filled(tmp_path, 2)
    (tmp_path / "logits_00000001.rec").write_bytes(b"torn")
    with pytest.raises(ValueError, match="mask logits of frame 1 are damaged"):
        list(store.chunks(2, CPU))


def test_without_a_store_nothing_stays():
    store = filled(None, 3)
    folder = store.records.folder
    assert folder.is_dir()
    store.close()
    assert not folder.exists()
