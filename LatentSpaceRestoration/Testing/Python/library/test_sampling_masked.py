"""The masked prior at work: tiles judged from outside, and holes filled by keyed draws."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from LatentSpaceRestorationLib.networks.masked import MaskedPrior
from LatentSpaceRestorationLib.sampling.masked import Holes, look_into, outside_view, tiles
from torch import Tensor
from torch.nn import functional as F

SHAPE = (9, 7)
CODES = 11


@functools.cache
def _prior() -> MaskedPrior:
    torch.manual_seed(0)
    prior = MaskedPrior(CODES, SHAPE, channels=(8, 16), blocks=(1, 1))
    with torch.no_grad():  # away from the zeros that residual branches begin with
        for parameter in prior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return prior.eval()


def _grids(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(CODES, (count, *SHAPE), generator=generator)
    return codes, torch.rand(count, generator=generator) - 0.5


KEYS = torch.randn(CODES, 5, generator=torch.Generator().manual_seed(3))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 8))
def test_tiles_share_out_the_grid_and_a_sets_tiles_do_not_touch(h: int, w: int, size: int) -> None:
    sets = tiles((h, w), size)
    assert (sets.sum(0) == 1).all()
    for hidden in sets:
        # A row of tiles is followed by `size` rows without any.
        rows = torch.nonzero(hidden.any(1)).flatten()
        assert all(int(r) // size % 2 == int(rows[0]) // size % 2 for r in rows)


def test_a_code_is_judged_by_the_codes_outside_its_tile_alone() -> None:
    prior, (codes, position) = _prior(), _grids(3)
    view = outside_view(prior, codes, position, KEYS, size=3)
    changed = codes.clone()
    changed[:, 3:6, 0:3] = (changed[:, 3:6, 0:3] + 1) % CODES
    again = outside_view(prior, changed, position, KEYS, size=3)
    inside = again.expected[:, :, 3:6, 0:3] - view.expected[:, :, 3:6, 0:3]
    assert inside.abs().max() < 1e-6
    assert (again.entropy - view.entropy)[:, 3:6, 0:3].abs().max() < 1e-6
    # Another code, another NLL.
    assert (again.nll - view.nll)[:, 3:6, 0:3].abs().min() > 0
    beside = again.expected[:, :, 3:6, 3:6] - view.expected[:, :, 3:6, 3:6]
    assert beside.abs().max() > 1e-4


def test_the_outside_view_is_the_priors_own_distribution() -> None:
    prior, (codes, position) = _prior(), _grids(2)
    view = outside_view(prior, codes, position, KEYS, size=2, chunk=1)
    hidden = tiles(SHAPE, 2)[1]
    with torch.no_grad():
        logits = prior(torch.where(hidden, prior.mask, codes), position)
    expected = F.cross_entropy(logits, codes, reduction="none")
    close = functools.partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)
    close(view.nll[:, hidden], expected[:, hidden])
    mean = torch.einsum("nkhw,kd->ndhw", logits.softmax(1), KEYS)
    close(view.expected[:, :, hidden], mean[:, :, hidden])
    # Mean and variance of the NLL of codes that are drawn from it.
    drawn = torch.distributions.Categorical(logits=logits.permute(0, 2, 3, 1))
    close(view.entropy[:, hidden], drawn.entropy()[:, hidden])
    every = [drawn.log_prob(torch.full(codes.shape, k)) for k in range(CODES)]
    square = sum(p.exp() * p**2 for p in every) - drawn.entropy() ** 2
    close(view.nll_variance[:, hidden], square[:, hidden])


@settings(max_examples=20)
@given(st.integers(0, 100), st.integers(1, 9), st.integers(1, 4))
def test_restorations_are_the_same_whatever_is_made_together(seed: int, chunk: int, first: int):
    prior, (codes, position) = _prior(), _grids(3, seed)
    unlikely = torch.rand(codes.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    holes = look_into(prior, codes, position, unlikely)
    whole = holes.fill(range(5), seed)
    again = look_into(prior, codes, position, unlikely, chunk=chunk)
    parts = [again.fill(part, seed) for part in (range(first), range(first, 5))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    kept = np.broadcast_to(~unlikely.numpy()[:, None], whole.shape)
    as_it_was = np.broadcast_to(codes.numpy()[:, None], whole.shape)
    np.testing.assert_array_equal(whole[kept], as_it_was[kept])
    assert whole.max() < CODES


def test_codes_of_a_hole_are_drawn_from_the_priors_distribution() -> None:
    prior, (codes, position) = _prior(), _grids(1)
    unlikely = torch.zeros(codes.shape, dtype=torch.bool)
    unlikely[0, 4:6, 3] = True
    drawn = look_into(prior, codes, position, unlikely).fill(range(4000), 1)
    with torch.no_grad():
        logits = prior(torch.where(unlikely, prior.mask, codes), position)
    for row in (4, 5):
        share = np.bincount(drawn[0, :, row, 3], minlength=CODES) / 4000
        expected = logits[0, :, row, 3].softmax(0).numpy()
        # Four standard deviations of a share of 4,000 draws.
        assert (np.abs(share - expected) < 4 * np.sqrt(expected / 4000) + 1e-3).all()


def test_the_likeliest_code_is_agreed_on_with_the_slices_beside() -> None:
    codes = np.zeros((3, 2, 2), np.int64)
    index = np.array([[0, 1, 2, 1], [0, 0, 0, 1], [0, 0, 0, 1]])
    chances = [[0.1, 0.8, 0.1], [0.1, 0.4, 0.5], [0.1, 0.8, 0.1], [0.1, 0.4, 0.5]]
    holes = Holes(codes, index, np.log(np.array(chances, np.float32)))
    found = holes.likeliest(0.7)
    # Alone it would be code 2, as it is where the slices beside have no hole.
    np.testing.assert_array_equal(found[:, 0, 0], [1, 1, 1])
    assert found[1, 1, 1] == 2
    assert (found[:, 0, 1] == 0).all()
    np.testing.assert_array_equal(holes.likeliest(1e-3)[:, 0, 0], [1, 2, 1])


def test_where_nothing_is_unlikely_nothing_changes() -> None:
    prior, (codes, position) = _prior(), _grids(2)
    holes = look_into(prior, codes, position, torch.zeros_like(codes, dtype=torch.bool))
    filled = holes.fill(range(3), 0)
    np.testing.assert_array_equal(filled, np.repeat(codes.numpy()[:, None], 3, axis=1))


def test_grids_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not \(9, 7\)"):
        _prior()(torch.zeros(1, 7, 9, dtype=torch.long), torch.zeros(1))
