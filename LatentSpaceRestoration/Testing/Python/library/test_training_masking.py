"""What the masked prior is trained on: holes of every kind, and codes that are wrong."""

from __future__ import annotations

import pytest
import torch
from LatentSpaceRestorationLib.training.data.masking import draw_masks, spoil


@pytest.mark.parametrize("shape", [(26, 20), (13, 10)])
def test_every_grid_has_a_hole_and_something_to_see(shape: tuple[int, int]) -> None:
    masks = draw_masks(300, shape, torch.Generator().manual_seed(0))
    share = masks.float().mean((1, 2))
    assert masks.shape == (300, *shape)
    assert float(share.min()) > 0.0
    assert float(share.max()) < 1.0
    assert 0.1 < float(share.mean()) < 0.5


def test_the_same_generator_draws_the_same() -> None:
    codes = torch.randint(16, (20, 13, 10), generator=torch.Generator().manual_seed(1))
    one, two = (torch.Generator().manual_seed(7) for _ in range(2))
    assert torch.equal(draw_masks(20, (13, 10), one), draw_masks(20, (13, 10), two))
    for a, b in zip(spoil(codes, 16, one), spoil(codes, 16, two), strict=True):
        assert torch.equal(a, b)


def test_about_half_of_the_grids_are_spoilt_and_it_is_told_where() -> None:
    codes = torch.randint(16, (400, 26, 20), generator=torch.Generator().manual_seed(1))
    before = codes.clone()
    given, is_wrong = spoil(codes, 16, torch.Generator().manual_seed(2))
    assert torch.equal(codes, before)
    assert torch.equal(is_wrong, given != codes)
    assert (given >= 0).all()
    assert (given < 16).all()
    spoilt = is_wrong.any(1).any(1).float().mean()
    assert 0.4 < float(spoilt) < 0.65
