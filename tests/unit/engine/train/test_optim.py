import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from entitysam.config import OptimConfig
from entitysam.engine.train.optim import build_optimizer, learning_rate, parameter_groups, set_learning_rate
from entitysam.registry import ConfigError


def config(**changes):
    return OmegaConf.merge(OmegaConf.structured(OptimConfig), changes)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.norm = nn.LayerNorm(3)
        self.table = nn.Embedding(4, 3)
        self.no_memory_embed = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.same_linear = self.linear


def test_parameter_groups():
    network = Network()
    groups = parameter_groups(network, config(weight_decay=0.05, weight_decay_norm=0.0, weight_decay_embed=0.01))
    by_decay = {group["weight_decay"]: {id(p) for p in group["params"]} for group in groups}
    assert by_decay == {
        0.05: {id(network.linear.weight), id(network.linear.bias)},
        0.0: {id(network.norm.weight), id(network.norm.bias)},
        0.01: {id(network.table.weight), id(network.no_memory_embed)},
    }
    optimizer = build_optimizer(network, config(lr=0.3))
    set_learning_rate(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1, 0.1]


def test_nothing_to_train():
    with pytest.raises(ConfigError, match="every parameter is frozen"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), config())


def test_step_schedule_with_warm_up():
    settings = config(lr=1.0, schedule="step", steps=[20, 30], gamma=0.1, warmup_iters=10, max_iters=40)
    rates = [learning_rate(settings, i) for i in (0, 4, 9, 10, 19, 20, 29, 30, 39)]
    assert rates == pytest.approx([0.1, 0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_and_constant():
    cosine = config(lr=2.0, schedule="cosine", warmup_iters=0, max_iters=100)
    assert [learning_rate(cosine, i) for i in (0, 50, 100)] == pytest.approx([2, 1, 0])
    constant = config(lr=2.0, schedule="constant", warmup_iters=0)
    assert learning_rate(constant, 12345) == 2
    with pytest.raises(ConfigError, match=r"optim\.schedule"):
        learning_rate(config(schedule="polynomial"), 0)


def test_optimisers_by_name():
    assert isinstance(build_optimizer(Network(), config()), torch.optim.AdamW)
    sgd = build_optimizer(Network(), config(name="sgd", lr=0.08, momentum=0.7))
    assert isinstance(sgd, torch.optim.SGD)
    assert {(group["lr"], group["momentum"]) for group in sgd.param_groups} == {(0.08, 0.7)}
    with pytest.raises(ConfigError, match=r"optim\.name: adamw or sgd, not 'adam'"):
        build_optimizer(Network(), config(name="adam"))


def test_parts_have_factors_of_the_rate():
    network = Network()
    groups = parameter_groups(network, config(lr_factors={"linear": 0.1}))
    factors = {id(parameter): group["lr_factor"] for group in groups for parameter in group["params"]}
    assert factors[id(network.linear.weight)] == factors[id(network.linear.bias)] == 0.1
    assert factors[id(network.norm.weight)] == 1.0
    optimizer = build_optimizer(network, config(lr=0.3, lr_factors={"linear": 0.1}))
    set_learning_rate(optimizer, 0.2)
    assert sorted({round(group["lr"], 6) for group in optimizer.param_groups}) == [0.02, 0.2]


def test_a_factor_of_no_part():
    with pytest.raises(ConfigError, match=r"optim.lr_factors.trunk"):
        parameter_groups(Network(), config(lr_factors={"trunk": 0.1}))
