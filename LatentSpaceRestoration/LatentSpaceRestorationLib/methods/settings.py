"""The settings of a mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BundleError
from ..inference.readings import ReadingPlan
from ..scoring.anomaly_map import MapRule
from ..scoring.filters import SMOOTHING_MM

#: The published sharpness k of the restoration weights (equation 6).
PAPER_SHARPNESS = 3.0


@dataclass(frozen=True)
class ModeSettings:
    """How a mode of latent space restoration makes a map and a score; a part of the model bundle.

    Attributes:
        paper: the published equations, which have percentiles only.
        restore_percentile: healthy percentile of the NLL of the brain's codes above which a code
            is resampled.
        slice_percentile: healthy percentile above which a code counts in the published score.
        difference_sigma_mm: Gaussian over the difference of the scan and its restoration.
        intensity_sigma_mm: Gaussian over the intensity.
        intensity_weight: share w of the intensity in the map, 0 to 1; see :attr:`rule`.
        tile_codes: of a masked prior, the side of a tile.
        slices_apart: of a masked prior, how far apart the slices are that it reads; maps of those
            between come from those beside.
        both_sides: of a masked prior, whether it reads each slice as it is and mirrored, and not
            one so and the next the other way.
        hole_percentile: of a masked prior, the healthy percentile of the NLL of the brain's codes
            above which a code is drawn anew.
        expected_sigma_mm: Gaussian over the difference of the scan and what is expected.
        wide_sigma_mm, wide_limit: of the wide mean that is taken off it; the limit in the scan's
            robust standard deviations.
        peak_ml: the sample score is the mean of the map over its hottest so many millilitres.
        edge_widths_mm: of a masked prior, neighbourhoods in which the map follows the edges of the
            scan.
    """

    paper: bool = False
    restore_percentile: float = 60.0
    slice_percentile: float = 98.0
    difference_sigma_mm: float = SMOOTHING_MM
    intensity_sigma_mm: float = SMOOTHING_MM
    intensity_weight: float = 0.5
    tile_codes: int = 4
    slices_apart: int = 2
    both_sides: bool = False
    hole_percentile: float = 95.0
    expected_sigma_mm: float = 5.0
    wide_sigma_mm: float = 20.0
    wide_limit: float = 0.5
    peak_ml: float = 1.0
    edge_widths_mm: tuple[float, ...] = (14.0, 34.0)

    @property
    def plan(self) -> ReadingPlan:
        """How a masked prior reads a scan."""
        return ReadingPlan(self.tile_codes, self.slices_apart, self.both_sides)

    @property
    def sharpness(self) -> float | None:
        """Of the restoration weights, see ``Averages``; None where they are not used."""
        return PAPER_SHARPNESS if self.paper else None

    @property
    def rule(self) -> MapRule:
        """How the map comes from :func:`feature_maps`.

        Paper mode: the filtered residual. Default mode: |d|^(1-w) |i|^w in units of the healthy
        spread, where d is the difference, i the intensity and w ``intensity_weight``. The geometric
        mean asks for both: the prior must find the tissue unlikely, and its intensity must be
        unusual for the place.
        """
        if self.paper:
            return MapRule({"residual": 1.0}, peak_ml=self.peak_ml)
        weights = {"difference": 1.0 - self.intensity_weight, "intensity": self.intensity_weight}
        return MapRule({k: w for k, w in weights.items() if w > 0}, peak_ml=self.peak_ml)

    @classmethod
    def of(cls, config: Mapping[str, Any], mode: str) -> ModeSettings:
        """A bundle's settings of a mode.

        Raises:
            BundleError: settings of another version.
        """
        if mode == "paper":
            return PAPER
        scoring = dict(config.get("scoring", {}))
        # A model from before there was a setting was calibrated without.
        widths = scoring.pop("edge_widths_mm", () if scoring else cls.edge_widths_mm)
        if scoring:
            scoring = {"slices_apart": 1, "both_sides": True, **scoring}
        try:
            return cls(**scoring, edge_widths_mm=tuple(map(float, widths)))
        except TypeError as error:
            raise BundleError(
                f"model.json has scoring settings that are not known ({error})"
            ) from error


#: The published percentiles: 98th for the sample score, 90th for resampling.
PAPER = ModeSettings(paper=True, restore_percentile=90.0)
