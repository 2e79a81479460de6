"""The picture of a result: what is shown where."""

from __future__ import annotations

import numpy as np
import pytest
from LatentSpaceRestorationLib.detection import Detection
from LatentSpaceRestorationLib.results import picture
from LatentSpaceRestorationLib.volume import Volume

#: The same place in the patient, whatever the order and direction of the axes.
AFFINES = {
    "RAS": np.array([[2.0, 0, 0, -60], [0, 2, 0, -70], [0, 0, 2, -50], [0, 0, 0, 1]]),
    "LPS": np.array([[-2.0, 0, 0, 60], [0, -2, 0, 70], [0, 0, 2, -50], [0, 0, 0, 1]]),
    "PSR": np.array([[0, 0, 2.0, -60], [-2, 0, 0, 70], [0, 2, 0, -50], [0, 0, 0, 1]]),
    "thick": np.array([[1.0, 0, 0, -60], [0, 1, 0, -70], [0, 0, 6, -50], [0, 0, 0, 1]]),
}
SPOT = np.array([24.0, 30.0, 20.0])  # right, front, upper


def case(affine: np.ndarray, **changes: object) -> tuple[Volume, Detection]:
    """An ellipsoid of a brain with a bright spot on the right, in front, above the middle."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    turned = np.abs(affine[:3, :3] / spacing).argmax(axis=0)
    shape = tuple(np.round(np.array([120, 140, 100])[turned] / spacing).astype(int))
    points = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    brain = np.square(points / [50.0, 60.0, 42.0]).sum(axis=-1) < 1
    spot = np.square(points - SPOT).sum(axis=-1) < 10**2
    scan = np.where(brain, 100.0, 0.0) + 200.0 * spot
    heat = (4.0 * spot).astype(np.float32)
    values = {
        "anomaly_map": heat,
        "anomaly_mask": (heat > 1).astype(np.uint8),
        "restoration": np.where(brain, 100.0, 0.0).astype(np.float32),
        "restoration_sd": heat,
        "brain_mask": brain.astype(np.uint8),
        "sample_score": 7.0,
        "percentile": 100 * 20 / 21,
        "p_value": 1 / 21,
        "threshold": 1.0,
        "threshold_percentile": 99.0,
        "slice_scores": (),
        "healthy_scans": 20,
        "model": "tiny",
        "mode": "default",
        "method": "lsr",
        "restorations": 15,
        "seed": 0,
        "device": "cpu",
        "warnings": (),
        "seconds": {},
        "version": "0",
    }
    volume = Volume(scan.astype(np.float32), affine, "scan")
    return volume, Detection(**{**values, **changes})  # type: ignore[arg-type]


def pane(image: np.ndarray, row: int, column: int) -> np.ndarray:
    top = picture._HEADER + row * (picture._PANE + picture._GAP)
    left = picture._MARGIN + column * (picture._PANE + picture._GAP)
    return image[top : top + picture._PANE, left : left + picture._PANE].astype(float)


def bright_place(shown: np.ndarray) -> np.ndarray:
    """Middle (row, column) of what is bright, letters at the rim apart."""
    bright = np.argwhere(shown[24:, 24:-24].mean(axis=-1) > 230)
    assert len(bright), "nothing is bright"
    return bright.mean(axis=0) + 24.0


@pytest.mark.parametrize("orientation", AFFINES)
def test_planes_are_seen_as_radiologists_do(orientation: str) -> None:
    volume, detection = case(AFFINES[orientation])
    image = np.asarray(picture.draw(volume, detection))
    middle = picture._PANE / 2
    # Patient's right on the left of the picture, the front on top or on the left.
    for row in range(3):
        y, x = bright_place(pane(image, row, 0))
        assert x < middle - 20
        assert y < middle - 20
        # The heat is where the spot is: yellow, more red than blue.
        warm = pane(image, row, 1)
        hot = np.argwhere(warm[..., 0] - warm[..., 2] > 60)
        np.testing.assert_allclose(hot.mean(axis=0), [y, x], atol=4)
        # The outline is about it, and the restoration has none of it.
        line = pane(image, row, 2)
        cyan = np.argwhere(line[..., 2] - line[..., 0] > 80)
        np.testing.assert_allclose(cyan.mean(axis=0), [y, x], atol=4)
        assert len(cyan) > 50
        with pytest.raises(AssertionError, match="nothing is bright"):
            bright_place(pane(image, row, 3))


def test_the_place_of_anisotropic_scans_agrees() -> None:
    """Thick slices are drawn at their true proportions."""
    thin, thick = (np.asarray(picture.draw(*case(AFFINES[name]))) for name in ("RAS", "thick"))
    np.testing.assert_allclose(
        bright_place(pane(thin, 1, 0)), bright_place(pane(thick, 1, 0)), atol=16
    )


def test_results_without_findings_and_with_long_texts_are_drawn() -> None:
    volume, detection = case(
        AFFINES["RAS"],
        anomaly_map=np.zeros((60, 70, 50), np.float32),
        anomaly_mask=np.zeros((60, 70, 50), np.uint8),
        warnings=("something to be said at length " * 20,),
        healthy_scans=0,
        p_value=1.0,
    )
    image = picture.draw(volume, detection, "a-very-long-name-of-a-scan" * 10)
    assert image.size == picture.draw(*case(AFFINES["RAS"])).size


def test_inferno_runs_from_black_to_pale_yellow() -> None:
    colours = picture.inferno(np.array([-1.0, 0.0, 0.5, 1.0, 2.0]))
    np.testing.assert_array_equal(colours[0], colours[1])
    np.testing.assert_array_equal(colours[[0, 2, 3]], [(0, 0, 4), (188, 55, 84), (252, 255, 164)])
    np.testing.assert_array_equal(colours[3], colours[4])
