"""``lsr`` in its default mode, with a masked prior: what is there beside what should be there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..calibration.code_values import CodeValues
from ..inference.averages import Averages
from ..inference.healing import cells_to_heal, healed, larger_regions, spread_between
from ..scoring.anomaly_map import MapRule
from ..scoring.filters import upsampled, without_wide_mean
from .base import Evidence, ScanContext
from .settings import ModeSettings

if TYPE_CHECKING:
    from ..inference.readings import Expected

#: How sure a prior can be at most: variance of a cell's intensity, residual, variance of the NLL.
#: Without these a tiny difference would count where one code alone is likely.
_LEAST_VARIANCE, _LEAST_RESIDUAL, _LEAST_NLL_VARIANCE = 0.05, 0.02, 0.5

#: Over so many slices, as a standard deviation, healed tissue is agreed on.
_DEPTH = 0.7


@dataclass(frozen=True)
class MaskedRestoration:
    """Each tile of codes is hidden, and what the rest leads one to expect is set beside it.

    Three properties are looked at, since anomalies differ in which of them gives them away: the
    difference of the scan and its expectation (another intensity), the residual of the VQ-VAE
    (another texture) and the likelihood of the codes (another structure). Each is set against what
    the prior itself says is to be expected there: beside a ventricle, whose width differs between
    healthy people, it is less sure than deep in white matter. The rarest counts, and the map ends
    where things in the scan end. It needs no restorations. Those are made to be looked at: where
    the map is high, codes are hidden, and the likeliest ones given what is around them are shown in
    their place; how far draws from the prior differ there is their spread.

    Attributes:
        settings: of the model.
        restore_threshold: nats; codes of the brain above it are unlikely.
        values: what the codes stand for.
    """

    draws_maps: ClassVar[bool] = False
    settings: ModeSettings
    restore_threshold: float
    values: CodeValues

    @property
    def rule(self) -> MapRule:
        weights = dict.fromkeys(("difference", "residual", "nll"), 1 / 3)
        one_sided = frozenset({"residual", "nll"})
        settings = self.settings
        return MapRule(weights, one_sided, "rarest", settings.peak_ml, settings.edge_widths_mm)

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """The maps at once; then after 1, 3, 7, 15 restorations, and after every 8 further ones."""
        networks, expected = context.expect(self.settings.plan, self.values)
        prepared, control = context.prepared, context.control
        maps = self.maps(context, expected)
        nll = expected.nll_of_brain
        share = float((nll > self.restore_threshold).sum()) / max(float(nll.size), 1.0)
        unlikely = (share, 1.0 - self.settings.hole_percentile / 100.0)
        at_first = Evidence.of_maps(maps, prepared.slices)
        yield replace(at_first, wanted=context.restorations, is_last=False, unlikely=unlikely)
        spacing = context.spacing_mm
        anomalous = np.zeros_like(prepared.mask)
        if context.anomalous is not None:
            anomalous = larger_regions(context.anomalous(maps), spacing)
        cells = cells_to_heal(anomalous, expected.brain, spacing)
        with control.step("restore", "Looking into what is unusual", 0.4) as report:
            known = networks.completed(prepared, expected)
            holes = networks.look_into(prepared, known.codes, cells, report)
        with control.step("decode", "Healing what is unusual", 0.45):
            image = networks.reconstruct(prepared, holes.likeliest(_DEPTH), known=known)
            restoration, weight = healed(prepared, image, known.images, cells, spacing, anomalous)
        # How far restorations differ is smooth, as the maps are: it is looked at where they are.
        drawn = np.flatnonzero(expected.read)
        some, known = prepared.some(drawn), known.some(drawn)
        averages = Averages(some.slices)
        groups = control.groups(context.restorations)
        group = next(groups, None)
        while group is not None:
            made = group.stop
            # The spread of one is 0 whatever it is: it is drawn with those that follow.
            if made > 1:
                message = f"Restoring ({group.start} of {context.restorations} done)"
                with control.step("restore", message, 0.0):
                    grids = holes.fill(range(averages.restorations, made), context.seed)[drawn]
                after = 0.45 + 0.5 * made / context.restorations
                with control.step("decode", message, after) as report:
                    networks.decode(
                        some, known.codes, grids, averages, report, control.is_cancelled, known
                    )
            group = next(groups, None)
            yield Evidence(
                maps,
                restoration,
                spread_between(averages.sd, drawn, cells, len(prepared.slices)),
                made,
                context.restorations,
                is_last=group is None,
                unlikely=unlikely,
                replaced=weight,
            )

    def maps(self, context: ScanContext, expected: Expected) -> dict[str, np.ndarray]:
        """The maps that the anomaly map is made of, (N, rows, columns) float32 each.

        Returns:
            ``difference``, in the prior's own standard deviations; ``residual``, as a share of the
            residual that the expected codes have; ``nll``, above what it is on average if the prior
            is right, in standard deviations of that.
        """
        x = context.prepared.slices
        sd = np.sqrt(upsampled(expected.variance, x.shape) + _LEAST_VARIANCE)
        normative = upsampled(expected.expected_residual, x.shape) + _LEAST_RESIDUAL
        nll_sd = np.sqrt(expected.nll_variance + _LEAST_NLL_VARIANCE)
        surprise = upsampled((expected.nll - expected.entropy) / nll_sd, x.shape)
        read = None if expected.read.all() else expected.read
        return {
            "difference": self._difference(context, (x - expected.image) / sd, read),
            **context.smoothed(
                {"residual": expected.residual / normative, "nll": surprise}, known=read
            ),
        }

    def _difference(
        self, context: ScanContext, difference: np.ndarray, read: np.ndarray | None
    ) -> np.ndarray:
        """Of the scan and what is expected, less what is so in all of the surroundings."""
        settings, spacing = self.settings, context.spacing_mm
        near = context.smoothed({"": difference}, settings.expected_sigma_mm, read)[""]
        sigma = settings.wide_sigma_mm / spacing
        return without_wide_mean(near, context.prepared.mask, sigma, settings.wide_limit)
