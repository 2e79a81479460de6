"""The families of synthetic anomalies, and how one is put into a healthy scan.

All are put into native scans, before any preprocessing. They are synthetic, and called so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import LSRError
from ...volume import Volume
from .artefacts import bias_field, missing_slices, motion_ghost
from .deformations import reflection, shift, sink, source
from .geometry import Healthy, random_centre
from .patches import foreign_patch, poisson_patch
from .spheres import gradient_sphere, noise_sphere, uniform_sphere
from .strokes import Shape, stroke

#: A voxel counts as changed if it changed by this share of the brain's robust standard deviation.
_CHANGED = 0.02
#: Voxels are rounded to this share of (a power of two below) the robust standard deviation, so that
#: the last bits of different machines' arithmetic do not show.
_GRAIN = 1.0 / 1024.0


@dataclass(frozen=True)
class Family:
    """One kind of anomaly.

    Attributes:
        name: as in ``--family`` and in tables.
        change: (scan, centre, size, contrast, seed, ...) -> changed (I, J, K) voxels.
        sizes, size_unit: sizes of the benchmark.
        contrasts, contrast_unit: contrasts of the benchmark.
        needs: ``donor``, ``shapes`` or nothing: what ``change`` takes besides, by name.
        whole_scan: an artefact: it has no place, and counts for sample scores alone.
        held_out: never used to choose or tune anything; shown only when asked for.
    """

    name: str
    change: Callable[..., np.ndarray]
    sizes: tuple[float, ...]
    contrasts: tuple[float, ...]
    size_unit: str = "mm radius"
    contrast_unit: str = "SD"
    needs: str = ""
    whole_scan: bool = False
    held_out: bool = False


_RADII = (8.0, 14.0, 22.0)
#: Deformations move little near their border, and so are larger.
_WIDE_RADII = (12.0, 18.0, 26.0)

FAMILIES = (
    Family("uniform-sphere", uniform_sphere, _RADII, (-2.5, -1.2, 1.2, 2.5)),
    Family("noise-sphere", noise_sphere, _RADII, (0.5, 1.0, 2.0)),
    Family("gradient-sphere", gradient_sphere, _RADII, (1.2, 2.0, 3.0)),
    Family("sink", sink, _WIDE_RADII, (0.7, 1.2, 2.0), contrast_unit="strength"),
    Family("source", source, _WIDE_RADII, (0.5, 0.7, 0.9), contrast_unit="strength"),
    Family("shift", shift, _RADII, (8.0, 15.0, 30.0), contrast_unit="mm"),
    Family(
        "reflection", reflection, _RADII, (0.5, 0.75, 1.0), contrast_unit="share", held_out=True
    ),
    Family("fpi", foreign_patch, _RADII, (0.4, 0.7, 1.0), contrast_unit="share", needs="donor"),
    Family("pii", poisson_patch, _RADII, (0.5, 0.75, 1.0), contrast_unit="share", needs="donor"),
    Family(
        "stroke-shape",
        stroke,
        (2.0, 10.0, 40.0),
        (-2.5, -1.6, -0.8, 1.2),
        size_unit="ml",
        needs="shapes",
    ),
    Family(
        "bias-field",
        bias_field,
        (150.0, 300.0),
        (0.2, 0.4, 0.7),
        size_unit="mm wavelength",
        contrast_unit="log factor",
        whole_scan=True,
    ),
    Family(
        "motion-ghost",
        motion_ghost,
        (2.0, 4.0),
        (0.05, 0.1, 0.2),
        size_unit="ghosts",
        contrast_unit="share",
        whole_scan=True,
    ),
    Family(
        "missing-slices",
        missing_slices,
        (2.0, 6.0),
        (0.5, 1.0),
        size_unit="mm",
        contrast_unit="share lost",
        whole_scan=True,
    ),
)


def family(name: str) -> Family:
    """The family of a name.

    Raises:
        LSRError: naming those that there are.
    """
    for known in FAMILIES:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in FAMILIES)
    raise LSRError(f"there is no family {name!r}; choose from: {names}")


def seed_of(seed: int, *names: str) -> int:
    """A seed that depends on names and on nothing else: not on what else is in a benchmark."""
    text = "\0".join((str(seed), *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def put_in(
    kind: Family,
    scan: Healthy,
    *,
    size: float,
    contrast: float,
    seed: int,
    donor: Healthy | None = None,
    shapes: Sequence[Shape] = (),
) -> tuple[Volume, np.ndarray]:
    """Put an anomaly of a family at a random place of a healthy scan.

    Args:
        kind: the family.
        scan: the healthy scan.
        size, contrast: in the family's units.
        seed: of the place and of all else that is random.
        donor: another healthy scan, for families that need one.
        shapes: lesion shapes, for families that need them.

    Returns:
        the changed scan; its (I, J, K) bool label, where a voxel changed: all False for artefacts.
        The same arguments give the same bytes.
    """
    generator = np.random.default_rng([seed, 0])
    centre = random_centre(scan, generator)
    of_need: dict[str, dict[str, Any]] = {"donor": {"donor": donor}, "shapes": {"shapes": shapes}}
    further = of_need.get(kind.needs, {})
    changed = kind.change(scan, centre, size, contrast, int(generator.integers(2**62)), **further)
    spread = scan.intensity[1]
    grain = 2.0 ** np.floor(np.log2(spread)) * _GRAIN
    before = scan.volume.array
    rounded = (np.round(changed.astype(np.float64) / grain) * grain).astype(np.float32)
    different = np.abs(rounded - before) > _CHANGED * spread
    array = np.where(different, rounded, before).astype(np.float32)
    label = np.zeros(before.shape, bool) if kind.whole_scan else different
    return replace(scan.volume, array=array), label
