"""Precisions and training steps on a device. `pytest -m cuda` runs them on a GPU; the same code runs here on the CPU."""

import copy

import pytest
import torch
from support.training import clips_from, run_config, small_network

from entitysam import distributed
from entitysam.engine.train.trainer import fit
from entitysam.inference.segmenter import VideoSegmenter
from entitysam.losses import EntityCriterion
from entitysam.precision import autocast, set_arithmetic
from entitysam.registry import ConfigError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
STEPS = {"train__batch_size": 2, "optim__max_iters": 2}


@pytest.fixture(autouse=True)
def defaults_after():
    yield
    set_arithmetic()


def outputs_of(model, frames):
    state, outputs = model.initial_state(), []
    with torch.inference_mode():
        for frame in frames:
            output, state = model.step(frame, state)
            outputs.append(output)
    return outputs


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-4), ("tf32", 0.02), ("bf16", 0.1)])
def test_parity_with_float32_on_the_cpu(small_model, small_video, device, precision, allowed):
    """Relative difference of the masks of 4 frames; the bounds are those of `test_autocast_stays_near_float32`."""
    expected = outputs_of(small_model, small_video[:4])
    set_arithmetic("high" if precision == "tf32" else "highest")
    with autocast("fp32" if precision == "tf32" else precision, device):
        actual = outputs_of(copy.deepcopy(small_model).to(device), small_video[:4])
    for one, other in zip(actual, expected, strict=True):
        assert one.mask_logits.device.type == device
        difference = one.mask_logits.cpu().float() - other.mask_logits
        assert difference.norm() / other.mask_logits.norm() < allowed


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("amp", ["fp32", "bf16", pytest.param("fp16", marks=pytest.mark.cuda)])
def test_a_training_step(tmp_path, device, amp):
    if amp == "fp16" and device == "cpu":
        pytest.skip("fp16 trains with a scaled loss, which is for GPUs")
    network = small_network().to(device)
    before = copy.deepcopy(network.state_dict())
    config = run_config(tmp_path, **STEPS, train__amp=amp)
    assert fit(network, EntityCriterion(num_points=128), clips_from, config, torch.device(device))
    after = network.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values() if value.is_floating_point())
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


def train_worker(folder):
    """One worker per GPU; module level, so that it can be spawned."""
    with distributed.process_group("cuda") as device:
        criterion = EntityCriterion(num_points=128)
        fit(small_network().to(device), criterion, clips_from, run_config(folder, **gpu_steps()), device)


def gpu_steps():
    return {**STEPS, "train__batch_size": 2 * torch.cuda.device_count()}


@pytest.mark.cuda
def test_workers_of_all_gpus_equal_one_process(tmp_path):
    """DDP on the GPUs that are there: the weights after two steps are those of one GPU at the same batch."""
    distributed.launch(train_worker, torch.cuda.device_count(), (tmp_path / "all",))
    one = small_network().to("cuda")
    config = run_config(tmp_path / "one", **gpu_steps())
    fit(one, EntityCriterion(num_points=128), clips_from, config, torch.device("cuda", 0))
    weights = [torch.load(tmp_path / name / "model_final.pt", weights_only=True)["model"] for name in ("all", "one")]
    for name, value in weights[0].items():
        torch.testing.assert_close(value.cpu(), weights[1][name].cpu(), rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.cuda
@pytest.mark.slow
def test_compiled_on_a_gpu(small_model, small_video):
    network = copy.deepcopy(small_model).cuda()
    settings = {"score_threshold": 0.0, "overlap_threshold": 0.1}
    compiled = VideoSegmenter(network, compile=True, **settings).segment(small_video).to_segments()
    eager = VideoSegmenter(network, **settings).segment(small_video).to_segments()
    assert (compiled.ids == eager.ids).mean() > 0.999


def test_arithmetic():
    set_arithmetic("high", cudnn_benchmark=True)
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.benchmark
    set_arithmetic(cudnn_benchmark=True, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    set_arithmetic()
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(ConfigError, match=r"arithmetic\.matmul: one of highest, high, medium, not 'fast'"):
        set_arithmetic("fast")
