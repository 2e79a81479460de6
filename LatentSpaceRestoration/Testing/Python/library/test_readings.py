"""Which slices a masked prior reads, and what of those between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.calibration.code_values import CodeValues
from LatentSpaceRestorationLib.inference.latent_model import LatentModel
from LatentSpaceRestorationLib.inference.readings import Expected, ReadingPlan, depths, torque
from LatentSpaceRestorationLib.methods.base import ScanContext
from LatentSpaceRestorationLib.methods.masked import MaskedRestoration
from LatentSpaceRestorationLib.methods.settings import ModeSettings
from LatentSpaceRestorationLib.model import Model
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan
from LatentSpaceRestorationLib.scoring.filters import masked_smooth
from tiny_model import generated_brain

BOTH, ALL = ReadingPlan(2), ReadingPlan(2, 1, False)
HALF = ReadingPlan(2, 2, False)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.load(read_bundle(tiny_model))


@pytest.fixture(scope="module")
def context(model: Model) -> ScanContext:
    from LatentSpaceRestorationLib.detector import Detector

    prepared, _ = Detector(model, None, 2.0).prepare(generated_brain((44, 52, 13)))
    return model.context(prepared, 3)


def values_of(model: Model) -> CodeValues:
    values = model.calibration().codes
    assert values is not None
    return values


def read(model: Model, context: ScanContext, plan: ReadingPlan) -> tuple[LatentModel, Expected]:
    return context.expect(plan, values_of(model))


def alone(model: Model, prepared: PreparedScan, name: str, turned: bool) -> np.ndarray:
    """A map of a whole scan that is read once, as the scan lies."""
    networks = model.context(prepared).latent_model()
    scan = prepared.mirrored() if turned else prepared
    found = getattr(networks._expect(scan, 2, values_of(model), None), name)
    return np.asarray(found[:, :, ::-1] if turned else found)


@pytest.mark.parametrize("first", [0, 3, 12])
@pytest.mark.parametrize("plan", [BOTH, ALL, HALF, ReadingPlan(2, 3, False)])
def test_plans_read_every_so_many_slices_from_the_top(
    context: ScanContext, plan: ReadingPlan, first: int
) -> None:
    """However many are missing below, the same are read, in the same way."""
    whole = context.prepared
    count = len(whole.slices)
    parts = plan.of(whole.some(np.arange(first, count)))
    read = {(int(n) + first, turned) for numbers, turned in parts for n in numbers}
    depth = depths(whole.position)
    numbers = {n for n, _ in read}
    if first < count - 1:
        assert numbers == {n for n in range(first, count) if depth[n] % plan.apart == 0}
        of_whole = {(int(n), turned) for part, turned in plan.of(whole) for n in part}
        assert read == {one for one in of_whole if one[0] >= first}
    assert (len(read) > len(numbers)) == plan.both_sides


def test_depths_are_those_below_the_top_wherever_positions_are_clipped() -> None:
    wanted = np.arange(70, -6, -1)  # five slices above what counts as the top
    position = np.clip(0.5 - wanted * 2.0 / 150.0, -0.5, 0.5).astype(np.float32)
    np.testing.assert_array_equal(depths(position), wanted)
    below = np.arange(90, 3, -1)
    position = np.clip(0.5 - below * 2.0 / 150.0, -0.5, 0.5).astype(np.float32)
    np.testing.assert_array_equal(depths(position), below)
    np.testing.assert_array_equal(depths(position[:1]), [0])


@pytest.mark.parametrize("plan", [BOTH, HALF, ALL])
def test_the_mirror_image_of_a_scan_gives_the_mirror_image_of_a_map(
    model: Model, context: ScanContext, plan: ReadingPlan
) -> None:
    mirrored = context.prepared.mirrored()
    assert torque(mirrored) == pytest.approx(-torque(context.prepared))
    assert abs(torque(mirrored)) > 1e-6
    found = read(model, context, plan)[1]
    other = read(model, model.context(mirrored, 3), plan)[1]
    np.testing.assert_array_equal(found.read, other.read)
    for name in ("nll", "image", "residual", "entropy"):
        one, two = getattr(found, name), getattr(other, name)
        np.testing.assert_allclose(one, two[:, :, ::-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["nll", "image", "variance", "residual", "entropy"])
def test_what_is_read_is_what_a_reading_of_all_gives(
    model: Model, context: ScanContext, name: str
) -> None:
    plain, mirrored = (alone(model, context.prepared, name, turned) for turned in (False, True))
    if torque(context.prepared) > 0.0:
        plain, mirrored = mirrored, plain
    both = getattr(read(model, context, BOTH)[1], name)
    np.testing.assert_allclose(both, (plain + mirrored) / 2, rtol=1e-5, atol=1e-5)
    half = getattr(read(model, context, HALF)[1], name)
    depth = depths(context.prepared.position) % 4
    np.testing.assert_allclose(half[depth == 0], plain[depth == 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(half[depth == 2], mirrored[depth == 2], rtol=1e-5, atol=1e-5)
    assert not half[depth % 2 == 1].any()


def test_codes_of_all_slices_are_there_when_something_is_healed(
    model: Model, context: ScanContext
) -> None:
    networks, whole = read(model, context, BOTH)
    for plan in (ALL, HALF):
        _, expected = read(model, context, plan)
        assert 0 < expected.decodes.sum() < len(expected.decodes)
        found = networks.completed(context.prepared, expected)
        np.testing.assert_array_equal(found.codes, whole.decoded.codes)
        np.testing.assert_allclose(found.images, whole.decoded.images, rtol=1e-5, atol=1e-5)
    assert networks.completed(context.prepared, whole) is whole.decoded


def test_slices_between_have_the_mean_of_those_beside() -> None:
    mask = np.ones((9, 6, 6), bool)
    known = np.arange(9) % 2 == 0
    values = np.where(known, np.arange(9.0), 1e6)[:, None, None] * np.ones((9, 6, 6))
    found = masked_smooth(values.astype(np.float32), mask, 1.5, known)
    np.testing.assert_allclose(found[3:6, 2, 2], [3.0, 4.0, 5.0], atol=0.02)


def test_maps_of_half_the_slices_are_about_those_of_all(model: Model, context: ScanContext) -> None:
    settings = ModeSettings(tile_codes=2)
    maps = {}
    for plan in (BOTH, HALF):
        own = replace(settings, slices_apart=plan.apart, both_sides=plan.both_sides)
        way = MaskedRestoration(own, 5.0, values_of(model))
        maps[plan] = way.maps(context, read(model, context, plan)[1])
    brain = context.prepared.mask
    for name, whole in maps[BOTH].items():
        half = maps[HALF][name]
        assert half.shape == whole.shape
        assert not half[~brain].any()
        assert np.corrcoef(half[brain], whole[brain])[0, 1] > 0.6, name


def test_models_of_before_read_as_they_were_calibrated() -> None:
    before = ModeSettings.of({"scoring": {"tile_codes": 4}}, "default")
    assert before.plan == ReadingPlan(4, 1, True)
    assert ModeSettings().plan == ReadingPlan(4, 2, False)
