"""Finding the brain: in an extracted scan, by a network, and when there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from LatentSpaceRestorationLib.brain import (
    already_extracted,
    brain_probability,
    extract_brain,
    largest_piece,
    load_network,
    network_input,
)
from LatentSpaceRestorationLib.bundle import read_bundle, write_bundle
from LatentSpaceRestorationLib.errors import BundleError, InputError
from LatentSpaceRestorationLib.networks.unet import UNet3D
from LatentSpaceRestorationLib.preprocessing import Head, to_head
from LatentSpaceRestorationLib.volume import Volume
from tiny_model import generated_brain, write_tiny_brain_model


class Thresholding(UNet3D):
    """Finds what is brighter than a value of the network's input."""

    def __init__(self, above: float) -> None:
        super().__init__([2, 2])
        self.above = above
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(x.shape))
        return 20.0 * (x - self.above)


def extracted_head() -> Head:
    """A brain without a head, at 4 mm."""
    return to_head(generated_brain(), 4.0)


def whole_head(outside: float = 60.0) -> Volume:
    """The generated brain, a dark gap, and tissue all round."""
    brain = generated_brain((54, 62, 50))
    index = np.moveaxis(np.indices(brain.shape), 0, -1)
    offset = (index - (np.array(brain.shape) - 1) / 2.0) * 4.0
    radius = np.linalg.norm(offset / [66.0, 84.0, 54.0], axis=-1)
    array = np.where((radius > 1.15) & (radius < 1.5), outside, brain.array)
    return Volume(array.astype(np.float32), brain.affine)


def test_an_extracted_brain_is_recognised() -> None:
    head = extracted_head()
    found = already_extracted(head, 4.0)
    assert found is not None
    truth = head.array > 0
    assert 2.0 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.99


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, -1000.0), (1.0, 500.0), (1e-3, 0.0)])
def test_an_extracted_brain_may_have_any_background(slope: float, intercept: float) -> None:
    brain = generated_brain()
    turned = brain.affine.copy()
    turned[:2, :2] = 4.0 * np.array([[0.96, -0.28], [0.28, 0.96]])
    head = to_head(Volume(brain.array * slope + intercept, turned), 4.0)
    found = already_extracted(head, 4.0)
    assert found is not None
    expected = already_extracted(to_head(Volume(brain.array, turned), 4.0), 4.0)
    assert expected is not None
    assert 2.0 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.99


def test_an_extracted_brain_may_be_standardised() -> None:
    """Its background is then neither the least nor the greatest value."""
    brain = generated_brain()
    tissue = brain.array > 0
    values = np.zeros_like(brain.array)
    values[tissue] = (brain.array[tissue] - 100.0) / 30.0
    found = already_extracted(to_head(Volume(values, brain.affine), 4.0), 4.0)
    assert found is not None
    assert found.sum() == pytest.approx(tissue.sum(), rel=0.02)


def test_holes_in_an_extracted_brain_belong_to_it() -> None:
    brain = generated_brain()
    brain.array[20:24, 24:28, 18:22] = 0.0
    found = already_extracted(to_head(brain, 4.0), 4.0)
    assert found is not None
    assert found.sum() == pytest.approx((generated_brain().array > 0).sum(), rel=0.01)


def test_a_head_is_not_taken_for_a_brain() -> None:
    head = whole_head()
    assert already_extracted(to_head(head, 4.0), 4.0) is None
    noise = np.abs(np.random.default_rng(0).normal(0.0, 2.0, head.shape))
    noisy = Volume((generated_brain(head.shape).array + noise).astype(np.float32), head.affine)
    assert already_extracted(to_head(noisy, 4.0), 4.0) is None


def test_a_little_object_or_a_field_of_view_full_of_one_thing_is_no_brain() -> None:
    array = np.zeros((40, 40, 40), np.float32)
    array[18:22, 18:22, 18:22] = 100.0
    small = to_head(Volume(array, np.diag([4.0, 4.0, 4.0, 1.0])), 4.0)
    assert already_extracted(small, 4.0) is None
    flat = Head(np.ones((5, 5, 5), np.float32), np.ones((5, 5, 5), bool), np.eye(4))
    assert already_extracted(flat, 4.0) is None
    nowhere = Head(np.ones((5, 5, 5), np.float32), np.zeros((5, 5, 5), bool), np.eye(4))
    assert already_extracted(nowhere, 4.0) is None


def test_the_largest_piece_has_its_holes_filled() -> None:
    mask = np.zeros((12, 12, 12), bool)
    mask[1:7, 1:7, 1:7] = True
    whole = mask.copy()
    mask[3, 3, 3] = False
    mask[9:11, 9:11, 9:11] = True
    np.testing.assert_array_equal(largest_piece(mask), whole)
    assert not largest_piece(np.zeros((3, 3, 3), bool)).any()


def test_the_networks_input_forgets_slope_and_intercept() -> None:
    array = whole_head().array
    plain = network_input(array)
    assert plain.dtype == np.float32
    assert plain.min() == 0.0
    assert plain.max() <= 2.0
    np.testing.assert_allclose(network_input(array * 7.0 - 300.0), plain, atol=1e-4)
    assert np.isfinite(network_input(np.ones((3, 3, 3)))).all()


def test_the_network_sees_a_padded_head_and_gives_it_back_unpadded() -> None:
    network = Thresholding(0.5)
    head = to_head(whole_head(), 4.0)
    probability = brain_probability(network, head)
    assert probability.shape == head.array.shape
    assert probability.dtype == np.float32
    assert all(size % network.multiple == 0 for size in network.shapes[0][2:])
    np.testing.assert_array_equal(probability > 0.5, network_input(head.array) > 0.5)


def test_an_extracted_scan_is_said_to_be_one() -> None:
    found = extract_brain(extracted_head(), 4.0, None)
    assert found.source == "extracted scan"
    assert "already brain-extracted" in found.warnings[0]


def test_part_of_a_head_is_not_taken_for_a_brain_without_one() -> None:
    """It has no more voxels than a brain, but ends where the scan does."""
    head = whole_head()
    part = to_head(Volume(head.array[:, :, 25:].copy(), head.affine), 2.0)
    assert already_extracted(part, 2.0) is not None
    assert extract_brain(part, 2.0, Thresholding(0.55)).source == "network"
    # A brain without a head may be cut as well: a network that sees as much says so.
    assert extract_brain(part, 2.0, Thresholding(0.3)).source == "extracted scan"


def test_a_brain_found_by_the_network_is_its_largest_piece() -> None:
    head = to_head(whole_head(outside=20.0), 4.0)
    found = extract_brain(head, 4.0, Thresholding(0.3))
    assert found.source == "network"
    assert found.warnings == ()
    brain = largest_piece(network_input(head.array) > 0.3)
    np.testing.assert_array_equal(found.mask, brain)


def test_a_head_without_a_network_or_without_a_brain_is_refused_in_one_line() -> None:
    head = to_head(whole_head(), 4.0)
    with pytest.raises(InputError, match="give a brain mask"):
        extract_brain(head, 4.0, None)
    with pytest.raises(InputError, match=r"no brain was found \(.* has 0 ml\)"):
        extract_brain(head, 4.0, Thresholding(5.0))
    with pytest.raises(InputError, match=r"no brain was found \(.* has \d{4,} ml\)"):
        extract_brain(head, 4.0, Thresholding(-1.0))


def test_unet_gives_a_logit_for_every_voxel() -> None:
    torch.manual_seed(0)
    network = UNet3D([4, 6, 8]).eval()
    assert network.multiple == 8
    x = torch.rand(1, 1, 16, 24, 32)
    with torch.inference_mode():
        logits = network(x)
        mirrored = network(x.flip(4)).flip(4)
    assert logits.shape == x.shape
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits, mirrored)


def test_folding_space_into_channels_keeps_every_voxel_in_its_place() -> None:
    network = UNet3D([4, 8])
    x = torch.zeros(1, 1, 8, 8, 8, requires_grad=True)
    logits = network(x)
    # Voxels of one 2 x 2 x 2 cell are told apart.
    gradients = [
        torch.autograd.grad(logits[0, 0, 2, 2, c], network.out.bias, retain_graph=True)[0]
        for c in (2, 3, 4)
    ]
    assert not torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


def test_a_brain_model_is_read_and_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    bundle = read_bundle(write_tiny_brain_model(tmp_path))
    network = load_network(bundle)
    assert not network.training
    config = {**bundle.config, "name": "other", "unet": {"channels": [4, 8, 8]}}
    weights = bundle.tensors("unet.safetensors")
    other = write_bundle(tmp_path / "other", config, {"unet.safetensors": weights}, None, None)
    with pytest.raises(BundleError, match="do not fit its settings") as refusal:
        load_network(other)
    assert "\n" not in str(refusal.value)
