"""The format of a bundle: its files, its keys, and what a hostile ``model.json`` may not say."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

#: Version of the folder's layout and of the meaning of its settings.
FORMAT_VERSION = 1
CONFIG = "model.json"
CALIBRATION = "calibration.json"
CARD = "MODEL_CARD.md"
#: Weights of the networks. A model of kind ``anomaly`` may have the masked prior, and one of brain
#: extraction the network that finds where a brain is.
VQVAE, PRIOR, MASKED = "vqvae.safetensors", "prior.safetensors", "masked.safetensors"
VAE = "vae.safetensors"
OUTLINE, LOCATOR = "unet.safetensors", "locator.safetensors"
#: Mean intensities of healthy brains by place, which heads are aligned with.
ATLAS = "atlas.safetensors"
#: Normative values, by ``<calibration key>.<map>.<part>``.
PLACE = "place.safetensors"
#: What every model states, and what a model that finds anomalies states besides.
KEYS = ("name", "kind", "licence", "files")
_SCAN_KEYS = ("modality", "grid", "spacing_mm", "orientation", "intensity")
KIND_KEYS = {
    "anomaly": (*_SCAN_KEYS, "vqvae", "prior"),
    "vae": (*_SCAN_KEYS, "vae"),
    "brain-extraction": ("spacing_mm", "unet"),
}
KIND_FILES = {
    "anomaly": (VQVAE, PRIOR),
    "vae": (VAE,),
    "brain-extraction": (OUTLINE,),
}
ENDINGS = (".safetensors", ".json", ".md")
#: The bundle that finds the brain.
BRAIN_BUNDLE = "brain-extraction"
#: Parts of the settings that a network is made of.
_NETWORKS = ("vqvae", "prior", "masked", "vae", "unet", "locator")
#: Most rows and columns of a slice, and mm between voxels.
_LARGEST_GRID, _SPACING_MM = 512, (0.1, 20.0)
#: Order of a shading; one of more would take anatomy for it.
_MOST_SHADING = 4
#: A network is at most so large: the square of its widest layer times its blocks. The published
#: ones have a quarter of that. What is larger would fill the memory before it is found not to fit.
_LARGEST_NETWORK = 2**22
_MAY_BE_0 = ("dropout", "beta")


def parse(data: bytes, finite: bool = False) -> dict[str, Any]:
    """A JSON object.

    Args:
        data: the text.
        finite: whether to refuse numbers that are not finite.

    Raises:
        ValueError: it is none; in a few words.
    """

    def number(text: str) -> float:
        value = float(text)
        if finite and not math.isfinite(value):
            raise ValueError(f"has {text[:20]} for a number")
        return value

    try:
        parsed = json.loads(data, parse_float=number, parse_constant=number)
    except RecursionError:
        raise ValueError("is not JSON (too deep)") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError("is not JSON") from error
    if not isinstance(parsed, dict):
        raise ValueError("is not a JSON object")
    return parsed


def fault(config: Mapping[str, Any]) -> str | None:
    """What is wrong with the settings that are there, in a few words; None if nothing is."""
    return next(_faults(config), None)


def _faults(config: Mapping[str, Any]) -> Iterator[str]:
    for key in ("name", "kind"):
        value = config.get(key, key)
        if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 200:
            yield f"{key} is no name"
    grid = config.get("grid", [1, 1])
    if (
        not isinstance(grid, list)
        or len(grid) != 2
        or not all(_is_whole(n) and 1 <= n <= _LARGEST_GRID for n in grid)
    ):
        yield f"grid is not two numbers of at most {_LARGEST_GRID}"
    spacing, (finest, coarsest) = config.get("spacing_mm", 1.0), _SPACING_MM
    if isinstance(spacing, bool) or not isinstance(spacing, int | float):
        yield "spacing_mm is no number"
    elif not finest <= spacing <= coarsest:
        yield f"spacing_mm is not between {finest:g} and {coarsest:g}"
    alignment = config.get("alignment")
    if alignment is not None and (
        not isinstance(alignment, dict) or not isinstance(alignment.get("atlas"), str)
    ):
        yield "alignment names no atlas"
    intensity = config.get("intensity", {})
    shading: Any = intensity.get("shading", 0) if isinstance(intensity, dict) else None
    if not _is_whole(shading) or not 0 <= shading <= _MOST_SHADING:
        yield f"intensity.shading is no whole number from 0 to {_MOST_SHADING}"
    if not isinstance(config.get("brain_model", ""), str):
        yield "brain_model is no name"
    probability = config.get("probability", 0.5)
    if isinstance(probability, bool) or not isinstance(probability, int | float):
        yield "probability is no number"
    elif not 0.0 < probability < 1.0:
        yield "probability is not between 0 and 1"
    for part in (*_NETWORKS, "scoring"):
        if not isinstance(config.get(part, {}), dict):
            yield f"{part} is no group of settings"
        elif part in _NETWORKS and _size(config.get(part, {})) > _LARGEST_NETWORK:
            yield f"{part} has sizes that no network of use has"


def _size(settings: Mapping[str, Any]) -> float:
    """The widest layer squared, times the number of blocks; infinite for what is no size."""
    width, depth = 1, 1
    for key, value in settings.items():
        numbers = value if isinstance(value, list) else [value]
        whole = [n for n in numbers if _is_whole(n)]
        listed = isinstance(value, list)
        if listed and (len(whole) != len(value) or not 0 < len(value) <= 16 or min(whole) < 1):
            return math.inf
        if any(n < (0 if key in _MAY_BE_0 else 1) for n in whole):
            return math.inf
        if "block" in key or "pair" in key:
            depth *= max([1, sum(whole)])
        else:
            width = max([width, *whole])
    return float(width) ** 2 * depth


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
