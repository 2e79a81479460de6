"""Finding the brain: in an extracted scan, by a network, and when there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.bundle.write import write_bundle
from LatentSpaceRestorationLib.errors import BundleError, InputError
from LatentSpaceRestorationLib.networks.unet import UNet3D
from LatentSpaceRestorationLib.preprocessing.brain_extraction import (
    BOX,
    BrainMask,
    BrainNetworks,
    already_extracted,
    boxed,
    brain_probability,
    extract_brain,
    largest_piece,
    load_networks,
    middle_of,
    network_input,
    roughly_scaled,
    scaled,
)
from LatentSpaceRestorationLib.preprocessing.field_of_view import measured_part
from LatentSpaceRestorationLib.preprocessing.slices import ResampledScan, mask_to_head, to_head
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


def seen(scan: Volume, spacing_mm: float = 4.0) -> tuple[ResampledScan, np.ndarray]:
    """What was measured of a scan, on the patient's axes, and where that is."""
    part = measured_part(scan)
    head = to_head(part.volume, spacing_mm)
    return head, mask_to_head(part.measured, part.volume, head)


def extracted(scan: Volume) -> np.ndarray | None:
    return already_extracted(*seen(scan), 4.0)


def brain_of(
    scan: Volume, network: UNet3D | None, spacing_mm: float = 4.0
) -> tuple[ResampledScan, BrainMask]:
    head, measured = seen(scan, spacing_mm)
    networks = None if network is None else BrainNetworks(network)
    return head, extract_brain(head, measured, spacing_mm, networks)


def whole_head(outside: float = 60.0) -> Volume:
    """The generated brain, a dark gap, and tissue all round."""
    brain = generated_brain((54, 62, 50))
    index = np.moveaxis(np.indices(brain.shape), 0, -1)
    offset = (index - (np.array(brain.shape) - 1) / 2.0) * 4.0
    radius = np.linalg.norm(offset / [66.0, 84.0, 54.0], axis=-1)
    # No tissue has one value all over.
    tissue = outside * (1.0 + 0.03 * np.sin(index.sum(axis=-1)))
    array = np.where((radius > 1.15) & (radius < 1.5), tissue, brain.array)
    return Volume(array.astype(np.float32), brain.affine)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(2.0 * (a & b).sum() / (a.sum() + b.sum()))


def test_an_extracted_brain_is_recognised() -> None:
    found = extracted(generated_brain())
    assert found is not None
    truth = seen(generated_brain())[1]
    assert overlap(found, truth) > 0.99
    assert found.sum() == pytest.approx((generated_brain().array > 0).sum(), rel=0.02)


@pytest.mark.parametrize("background", [0.0, -5000.0, 330.0, 32767.0, 137.5])
def test_an_extracted_brain_may_have_any_background(background: float) -> None:
    brain = generated_brain()
    turned = brain.affine.copy()
    turned[:2, :2] = 4.0 * np.array([[0.96, -0.28], [0.28, 0.96]])
    other = np.where(brain.array > 0, brain.array, background)
    found = extracted(Volume(other, turned))
    expected = extracted(Volume(brain.array, turned))
    assert found is not None
    assert expected is not None
    # A background as bright as tissue takes a fold or two with it.
    assert overlap(found, expected) > 0.99


def test_an_extracted_brain_may_be_standardised() -> None:
    """Its background is then neither the least nor the greatest value."""
    brain = generated_brain()
    tissue = brain.array > 0
    values = np.zeros_like(brain.array)
    values[tissue] = (brain.array[tissue] - 100.0) / 30.0
    found = extracted(Volume(values, brain.affine))
    assert found is not None
    assert found.sum() == pytest.approx(tissue.sum(), rel=0.02)


def test_holes_in_an_extracted_brain_belong_to_it() -> None:
    brain = generated_brain()
    brain.array[20:24, 24:28, 18:22] = 0.0
    found = extracted(brain)
    assert found is not None
    assert found.sum() == pytest.approx((generated_brain().array > 0).sum(), rel=0.02)


def test_a_head_is_not_taken_for_a_brain() -> None:
    head = whole_head()
    assert extracted(head) is None
    noise = np.abs(np.random.default_rng(0).normal(0.0, 2.0, head.shape))
    noisy = Volume((generated_brain(head.shape).array + noise).astype(np.float32), head.affine)
    assert extracted(noisy) is None


def test_a_little_object_or_a_field_of_view_full_of_one_thing_is_no_brain() -> None:
    array = np.zeros((40, 40, 40), np.float32)
    array[18:22, 18:22, 18:22] = 100.0
    assert extracted(Volume(array, np.diag([4.0, 4.0, 4.0, 1.0]))) is None
    whole = np.ones((5, 5, 5), bool)
    flat = ResampledScan(np.ones((5, 5, 5), np.float32), whole, np.eye(4))
    assert already_extracted(flat, whole, 4.0) is None
    nowhere = ResampledScan(np.ones((5, 5, 5), np.float32), ~whole, np.eye(4))
    assert already_extracted(nowhere, whole, 4.0) is None


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


def test_scales_do_not_depend_on_slope_intercept_or_the_amount_of_air() -> None:
    array = whole_head().array
    plain = roughly_scaled(array)
    np.testing.assert_allclose(roughly_scaled(array * 7.0 - 300.0), plain, atol=1e-4)
    more = roughly_scaled(np.pad(array, 15))[15:-15, 15:-15, 15:-15]
    np.testing.assert_allclose(more, plain, rtol=0.05, atol=1e-3)
    assert np.isfinite(roughly_scaled(np.ones((3, 3, 3)))).all()
    np.testing.assert_array_equal(scaled(np.array([0.0, 50, 150, 900]), 50.0, 150.0), [0, 0, 1, 3])


def test_a_box_has_its_middle_where_it_is_asked_for_and_air_beyond_the_scan() -> None:
    array = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    box, here, there = boxed(array, np.array([1, 2, 5]), (4, 4, 4), -1.0)
    assert box[2, 2, 2] == array[1, 2, 5]
    np.testing.assert_array_equal(box[here], array[there])
    assert (box == -1.0).sum() == box.size - array[there].size
    beyond, here, there = boxed(array, np.array([40, 2, 2]), (4, 4, 4), -1.0)
    assert (beyond == -1.0).all()
    assert array[there].size == beyond[here].size == 0


def test_an_older_models_network_sees_a_padded_head_and_gives_it_back_unpadded() -> None:
    network = Thresholding(0.5)
    head = to_head(whole_head(), 4.0)
    probability = brain_probability(BrainNetworks(network), head)
    assert probability.shape == head.array.shape
    assert probability.dtype == np.float32
    assert all(size % network.multiple == 0 for size in network.shapes[0][2:])
    np.testing.assert_array_equal(probability > 0.5, network_input(head.array) > 0.5)


def test_the_outline_is_drawn_in_a_box_about_the_brain_whatever_lies_around() -> None:
    """Both networks find what is brighter than half of the brain's median."""
    scan = generated_brain()
    scan = Volume(scan.array, np.diag([2.0, 2.0, 2.0, 1.0]))
    shown = []
    for pads in (((0, 0),) * 3, ((30, 5), (2, 44), (60, 0))):
        head, _ = seen(Volume(np.pad(scan.array, pads), scan.affine), 2.0)
        outline = Thresholding(0.5)
        probability = brain_probability(BrainNetworks(outline, Thresholding(0.5)), head)
        assert outline.shapes == [(1, 1, *BOX)] * 2  # the brain, and its mirror image
        found = largest_piece(probability > 0.5)
        middle = 2 * np.round(middle_of(found) / 2.0).astype(int)
        shown.append(boxed(probability > 0.5, middle, BOX)[0])
    np.testing.assert_array_equal(shown[0], shown[1])


def test_an_extracted_scan_is_said_to_be_one() -> None:
    _, found = brain_of(generated_brain(), None)
    assert found.source == "extracted scan"
    assert "already brain-extracted" in found.warnings[0]


def test_part_of_a_head_is_not_taken_for_a_brain_without_one() -> None:
    """It has no more voxels than a brain, but a network sees that most of them are none."""
    head = whole_head()
    part = Volume(head.array[:, :, 25:].copy(), head.affine)
    assert already_extracted(*seen(part, 2.0), 2.0) is not None
    assert brain_of(part, Thresholding(0.55), 2.0)[1].source == "network"
    # A brain without a head may be cut as well: a network that sees as much says so.
    assert brain_of(part, Thresholding(-1.0), 2.0)[1].source == "extracted scan"


def test_a_brain_found_by_the_network_is_its_largest_piece() -> None:
    head, found = brain_of(whole_head(outside=20.0), Thresholding(0.3))
    assert found.source == "network"
    assert found.warnings == ()
    brain = largest_piece(network_input(head.array) > 0.3)
    np.testing.assert_array_equal(found.mask, brain)


def test_a_head_without_a_network_or_without_a_brain_is_refused_in_one_line() -> None:
    head = whole_head()
    with pytest.raises(InputError, match="give a brain mask"):
        brain_of(head, None)
    with pytest.raises(InputError, match=r"no brain was found \(.* has 0 ml\)"):
        brain_of(head, Thresholding(5.0))
    with pytest.raises(InputError, match=r"no brain was found \(.* has \d{4,} ml\)"):
        brain_of(head, Thresholding(-1.0))
    nothing = BrainNetworks(Thresholding(0.5), Thresholding(9.0))
    with pytest.raises(InputError, match=r"no brain was found \(.* has 0 ml\)"):
        extract_brain(*seen(head), 4.0, nothing)


def test_a_little_scan_is_refused_as_any_other() -> None:
    torch.manual_seed(0)
    little = Volume(generated_brain((14, 12, 10)).array, np.diag([2.0, 2.0, 2.0, 1.0]))
    networks = BrainNetworks(UNet3D([2, 2, 2]).eval(), UNet3D([2, 2, 2, 2]).eval())
    with pytest.raises(InputError, match="no brain was found"):
        extract_brain(*seen(little), 4.0, networks)


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
    networks = load_networks(bundle)
    assert not networks.outline.training
    assert networks.locator is None
    weights = bundle.tensors("unet.safetensors")
    both = {"unet.safetensors": weights, "locator.safetensors": weights}
    config = {**bundle.config, "name": "two", "locator": bundle.config["unet"]}
    assert load_networks(write_bundle(tmp_path / "two", config, both)).locator is not None
    config = {**bundle.config, "name": "other", "unet": {"channels": [4, 8, 8]}}
    other = write_bundle(tmp_path / "other", config, {"unet.safetensors": weights}, None, None)
    with pytest.raises(BundleError, match="do not fit its settings") as refusal:
        load_networks(other)
    assert "\n" not in str(refusal.value)
