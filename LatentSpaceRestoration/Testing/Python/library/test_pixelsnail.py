"""The prior: causal at every place, the same with its weight norm folded, of published size."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from LatentSpaceRestorationLib.networks.layers import fold_weight_norm
from LatentSpaceRestorationLib.networks.pixelsnail import PixelSNAIL

CONFIGURATIONS = {
    "stride 2": {"shape": (6, 8), "attention_stride": 2},
    "stride 1": {"shape": (5, 4), "attention_stride": 1},
    "stride 3, no position": {"shape": (6, 3), "attention_stride": 3, "position": False},
}


@functools.cache
def _prior(name: str) -> PixelSNAIL:
    torch.manual_seed(0)
    prior = PixelSNAIL(
        codes=9, channels=12, blocks=2, pairs=2, key_size=4, value_size=6, **CONFIGURATIONS[name]
    )
    with torch.no_grad():  # away from the initial biases of zero, which could hide a leak
        for parameter in prior.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return prior.eval()


def _codes(prior: PixelSNAIL, n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(prior.codes, (n, *prior.shape), generator=torch.manual_seed(seed))


@pytest.mark.parametrize("name", CONFIGURATIONS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_logits_do_not_depend_on_the_code_there_or_on_later_ones(name: str, data: st.DataObject):
    prior = _prior(name)
    rows, columns = prior.shape
    place = data.draw(st.integers(0, rows * columns - 1))
    codes = _codes(prior, 2, data.draw(st.integers(0, 1000)))
    changed = codes.clone()
    later = changed.flatten(1)[:, place:]
    later.copy_((later + torch.randint(1, prior.codes, later.shape)) % prior.codes)
    only_one = codes.clone()
    only_one.flatten(1)[:, place] = changed.flatten(1)[:, place]
    position = torch.tensor([-0.4, 0.1])
    with torch.no_grad():
        # As one batch, so that the same instructions are applied to the same numbers.
        original, a, b = prior(torch.cat([codes, changed, only_one]), position.repeat(3)).chunk(3)
    for other in (a, b):
        before = (other - original).flatten(2)[:, :, : place + 1]
        assert before.abs().max() <= 1e-5
    if place < rows * columns - columns:
        assert (b - original).abs().max() > 1e-4, "nothing depends on the code"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_gradient_flows_back_from_earlier_logits(name: str):
    """The strict form of causality, on the features: gradients of masked paths are exactly 0."""
    prior = copy.deepcopy(_prior(name)).double()
    rows, columns = prior.shape
    x = torch.randn(1, 12, rows, columns, dtype=torch.float64, requires_grad=True)
    condition = None
    if prior.embedding is not None:
        condition = prior.embedding(torch.tensor([0.2], dtype=torch.float64))
    out = prior.blocks[1](prior.blocks[0](x, condition), condition).flatten(2)
    for place in range(0, rows * columns, 3):
        (gradient,) = torch.autograd.grad(out[:, :, place].sum(), x, retain_graph=True)
        assert not gradient.flatten(2)[:, :, place + 1 :].any()
        assert gradient.flatten(2)[:, :, place].any()
    # The block's input at a place depends on the codes before it: never on the code at it.
    first = prior.first.weight * prior.first.mask
    assert not first[:, :, 3, 3:].any()
    assert first[:, :, 3, :3].all()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_folding_changes_nothing_but_the_form(name: str):
    prior = _prior(name)
    codes, position = _codes(prior, 3), torch.tensor([-0.5, 0.0, 0.5])
    before = {key: value.clone() for key, value in prior.state_dict().items()}
    with torch.no_grad():
        expected = prior(codes, position)
        folded = fold_weight_norm(prior)
        assert torch.allclose(folded(codes, position), expected, atol=1e-5)
        # The original is as it was, and still works: deep copies share their classes with it.
        assert torch.equal(prior(codes, position), expected)
    assert all(torch.equal(before[key], value) for key, value in prior.state_dict().items())
    assert not any("parametrizations" in key for key in folded.state_dict())
    assert not folded.training
    with torch.inference_mode():
        assert torch.equal(fold_weight_norm(folded)(codes, position), folded(codes, position))


def test_either_form_of_the_weights_loads():
    prior = _prior("stride 2")
    arguments = {"codes": 9, "channels": 12, "blocks": 2, "key_size": 4, "value_size": 6}
    arguments |= {"shape": [6, 8]}
    codes, position = _codes(prior, 1), torch.zeros(1)
    for tensors in (prior.state_dict(), fold_weight_norm(prior).state_dict()):
        loaded = PixelSNAIL.from_tensors(tensors, **arguments)
        with torch.no_grad():
            assert torch.allclose(loaded(codes, position), prior(codes, position), atol=1e-5)
    with pytest.raises(RuntimeError):
        PixelSNAIL.from_tensors(prior.state_dict(), **(arguments | {"channels": 8}))


def test_the_position_matters_and_only_where_it_is_a_condition():
    codes = _codes(_prior("stride 2"), 1)
    low, high = torch.tensor([-0.5]), torch.tensor([0.5])
    with torch.no_grad():
        prior = _prior("stride 2")
        assert (prior(codes, low) - prior(codes, high)).abs().max() > 1e-3
        with pytest.raises(ValueError, match="position"):
            prior(codes)
        prior = _prior("stride 3, no position")
        codes = _codes(prior, 1)
        assert torch.equal(prior(codes, low), prior(codes))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="not divisible"):
        PixelSNAIL(shape=(5, 4), attention_stride=2)
    with pytest.raises(ValueError, match="not \\(6, 8\\)"):
        _prior("stride 2")(torch.zeros(1, 8, 6, dtype=torch.int64), torch.zeros(1))


def test_it_trains_under_bfloat16_autocast_in_channels_last():
    torch.manual_seed(0)
    prior = PixelSNAIL(codes=8, shape=(4, 4), channels=16, blocks=1, pairs=1, value_size=8)
    prior.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(prior.parameters(), 5e-3)
    codes = (torch.arange(16).view(1, 4, 4) + torch.arange(8)[:, None, None]) % 8
    position = torch.linspace(-0.5, 0.5, 8)
    losses = []
    for _ in range(25):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = prior(codes, position)
        assert logits.dtype == torch.float32
        loss = torch.nn.functional.cross_entropy(logits, codes)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in prior.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(("side", "stride"), [(20, 2), (10, 1)], ids=["brain", "abdomen"])
def test_the_published_sizes_build_and_run(side: int, stride: int):
    prior = PixelSNAIL(
        codes=128,
        shape=(side, side),
        channels=128,
        blocks=4,
        pairs=4,
        attention_stride=stride,
        value_size=128,
    ).eval()
    with torch.no_grad():
        logits = prior(_codes(prior, 1), torch.zeros(1))
    assert logits.shape == (1, 128, side, side)
    assert logits.isfinite().all()
