"""Training of brain extraction: heads as another scanner might have given them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_scan
from LatentSpaceRestorationLib.datasets.subjects import Subject
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.networks.unet import UNet3D
from LatentSpaceRestorationLib.preprocessing.brain_extraction import BOX, BRIGHTEST, BrainNetworks
from LatentSpaceRestorationLib.preprocessing.field_of_view import measured_part
from LatentSpaceRestorationLib.preprocessing.slices import to_head
from LatentSpaceRestorationLib.training.data.head_augmentation import WHOLE, vary
from LatentSpaceRestorationLib.training.engine.run import Run, Schedule
from LatentSpaceRestorationLib.training.networks.brain import (
    Heads,
    extraction_dice,
    load_heads,
    train_brain,
)
from LatentSpaceRestorationLib.volume import dice
from tiny_model import generated_brain
from torch import Tensor


class Bright(UNet3D):
    """Finds what is not dark."""

    def __init__(self) -> None:
        super().__init__([2, 2])

    def forward(self, x: Tensor) -> Tensor:
        return 20.0 * (x - 0.1)


def ball() -> tuple[np.ndarray, np.ndarray]:
    """A brain without a head, of one intensity, off the centre, and its mask."""
    z, y, x = np.ogrid[:100, :110, :90]
    mask = ((z - 55) / 40.0) ** 2 + ((y - 52) / 46.0) ** 2 + ((x - 46) / 38.0) ** 2 < 1.0
    return np.where(mask, 100.0, 0.0).astype(np.float32), mask


@pytest.mark.parametrize("coarse", [False, True])
def test_a_varied_head_and_its_mask_change_together(coarse: bool) -> None:
    head, mask = ball()
    overlaps = []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        given, target, painted = vary(head, mask, generator, coarse=coarse)
        assert given.shape == target.shape == painted.shape == (1, 1, *(WHOLE if coarse else BOX))
        assert set(target.unique().tolist()) == {0.0, 1.0}
        assert float(given.min()) >= 0.0
        assert float(given.max()) <= BRIGHTEST
        # A lesion may be as dark as what is outside, and is brain all the same.
        assert target[painted].all()
        overlaps.append(dice((given > 0.35).numpy() | painted.numpy(), target.numpy() > 0))
    # Noise, curves and odd values hide the ball at times, not mostly.
    assert np.median(overlaps) > 0.95


def test_variations_repeat_with_their_generator() -> None:
    head, mask = ball()
    one, two, other = (vary(head, mask, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[1], other[1])


def test_dice() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True
    assert dice(a, b) == 0.5
    assert dice(a, a) == 1.0
    assert dice(a, ~a) == 0.0


def test_heads_masks_and_their_overlap_on_disk(tmp_path: Path) -> None:
    scan = generated_brain((44, 52, 20))
    path = save_scan(tmp_path / "s.nii", scan.array, scan.affine)
    mask = save_scan(tmp_path / "m.nii", (scan.array > 0).astype("u1"), scan.affine)
    found = load_heads([Subject("A", "tune", path, mask, site="here")], 4.0)
    expected = to_head(measured_part(scan).volume, 4.0)
    np.testing.assert_array_equal(found.heads[0].array, expected.array)
    assert found.masks[0].sum() == (scan.array > 0).sum()
    assert found.sites == ["here"]
    figures = extraction_dice(BrainNetworks(Bright()), found)
    assert figures["dice_min"] == figures["dice_median"] > 0.98
    lines: list[str] = []
    cut = tmp_path / "cut.nii"
    cut.write_bytes(path.read_bytes()[:500])
    subjects = [Subject("A", "tune", path, None), Subject("B", "tune", cut, mask)]
    with pytest.raises(InputError, match=r"none of the 2 scans can be used; the first: .*no brain"):
        load_heads(subjects, 4.0, lines.append)
    assert len(lines) == 2
    assert "left out: B" in lines[1]
    assert len(load_heads([*subjects, Subject("C", "tune", path, mask)], 4.0).heads) == 1


def test_a_scan_of_a_site_of_few_is_worth_more() -> None:
    weights = Heads([], [], ["many"] * 9 + ["one"]).weights
    assert weights[9] / weights[0] == pytest.approx(3.0)


def test_a_few_steps_of_training_lower_the_loss(tmp_path: Path) -> None:
    scan = generated_brain((44, 52, 30))
    head = to_head(scan, 4.0)
    data = Heads([head], [head.array > 0], [""])
    schedule = Schedule(6, learning_rate=1e-2, warmup=1, average=0.5, batch=1, precision="float32")
    network = train_brain({"channels": [2, 2]}, data, data, Run(schedule, tmp_path / "u.pt"))
    assert isinstance(network, UNet3D)
    torch.manual_seed(schedule.seed)
    untrained = UNet3D([2, 2]).eval()
    given, target, _ = vary(head.array, head.array > 0, torch.Generator().manual_seed(9))
    with torch.inference_mode():
        losses = [
            float(torch.nn.functional.binary_cross_entropy_with_logits(net(given), target))
            for net in (untrained, network)
        ]
    assert losses[1] < losses[0]
