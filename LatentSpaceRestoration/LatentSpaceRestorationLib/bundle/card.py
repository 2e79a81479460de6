"""Model cards: what a model is, what it was made from, how it did, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: What there is to say of a kind of model.
_KINDS = {
    "anomaly": "A VQ-VAE and a PixelSNAIL prior of healthy {modality} scans: what the prior finds "
    "unlikely is replaced, and the difference is the anomaly map (Naval Marimont and Tarroni, ISBI "
    "2021).",
    "vae": "A variational autoencoder of healthy {modality} scans, the baseline that latent space "
    "restoration is compared with.",
}

_MASKED = (
    " The default mode has a masked prior besides, which expects each part of a slice from what is "
    "around it (after MIM-OOD, Naval Marimont, Siomos and Tarroni, 2023)."
)


def model_card(config: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    """The card of a model that finds anomalies, from its settings, calibration and figures."""
    kind = _KINDS[config["kind"]].format(modality=config["modality"])
    if "masked" in config:
        kind += _MASKED
    lines = [
        f"# {config['name']}",
        "",
        kind,
        "",
        "**For research. Not for diagnosis.**",
        "",
        "## Data",
        "",
        _trained_on(config["training"]),
        _calibrated_on(len(calibration.get("scans", ())), calibration.get("sites", ())),
        *_adapted(config),
        *_laid(config),
        f"- Licence of the weights: {config['licence']}; whoever passes them on names the data "
        "with them.",
        "",
        "## Figures",
        "",
    ]
    if not config["metrics"]:
        lines += ["Not measured yet.", ""]
    for mode, figures in config["metrics"].items():
        lines += _figures(mode, figures)
    if config["metrics"]:
        lines += [
            "Settings of the default mode were chosen on scans of the `tune` set, so figures on "
            "that set are somewhat kind. Synthetic anomalies say nothing about real lesions.",
            "",
        ]
    lines += [
        "## Limits",
        "",
        "- Scans of other scanners, field strengths, ages and thicknesses than those of the "
        "training shift all intensities.",
        "- Axial slices are scored one by one; what is normal in each slice but not in their "
        "sequence is not seen.",
        "- Small (below about 8 mm) and iso-intense lesions are likely missed. Anatomical variants "
        "such as large ventricles are flagged.",
        "",
    ]
    return "\n".join(lines)


def brain_card(config: Mapping[str, Any]) -> str:
    """The card of a brain-extraction model."""
    training, figures = config["training"], config["metrics"]
    return "\n".join(
        [
            f"# {config['name']}",
            "",
            f"Two small 3-D U-Nets that mark the brain in a {config['modality']} head scan: one "
            "finds where it is, the other draws its outline in a box about that place at "
            f"{config['spacing_mm']:g} mm. What programs put around a head is told from what was "
            "measured before they see it.",
            "",
            f"{_trained_on(training)}{_sites(training)} Heads were turned, cut, padded, defaced, "
            "stripped of neck or skull, shaded, blurred, made noisy and of other contrast, and "
            "spheres of one intensity painted into the brain, of which they are a part: lesions "
            "should be, too.",
            f"- Measured on {figures['scans']} other scans of the set `tune`: median Dice "
            f"{figures['dice_median']:.3f}, lowest {figures['dice_min']:.3f}.",
            f"- Licence of the weights: {config['licence']}, with the attribution above.",
            "- For research. Not for diagnosis.",
            "",
        ]
    )


def _sites(training: Mapping[str, Any]) -> str:
    sites = training.get("sites", ())
    return f" They come from {len(sites)} sites: {', '.join(sites)}." if len(sites) > 1 else ""


def _trained_on(training: Mapping[str, Any]) -> str:
    population = training.get("population", "healthy people")
    left_out = len(training.get("left_out", ()))
    without = f"; {left_out} more could not be used" if left_out else ""
    return (
        f"- Trained on {len(training['subjects'])} scans of {population}{without}: "
        f"{training['data']}."
    )


def _laid(config: Mapping[str, Any]) -> list[str]:
    """How heads are laid, where the model states it."""
    if "alignment" not in config:
        return []
    if config["alignment"] is None:
        return ["- Heads are taken as they lie."]
    line = (
        "- Heads are laid by an atlas, the mean of the training scans, group-wise, before anything "
        "sees them"
    )
    if config["training"].get("aligned", True):
        return [f"{line}, in training as well."]
    return [f"{line}. The weights are older: they were trained on heads as they lie."]


def _adapted(config: Mapping[str, Any]) -> list[str]:
    if "adapted_from" not in config:
        return []
    return [
        f"- Adapted from `{config['adapted_from']}`: its weights as they are, with what is healthy "
        "told by other scans alone."
    ]


def _calibrated_on(scans: int, sites: Sequence[str]) -> str:
    if not scans:
        return "- Not calibrated yet."
    share = 100.0 * scans / (scans + 1)
    of = f" of {len(sites)} sites ({', '.join(sites)})" if len(sites) > 1 else ""
    return (
        f"- Thresholds and percentiles come from {scans} other healthy scans{of}; with so many no "
        f"percentile above {share:.0f} can be claimed."
    )


def _figures(mode: str, figures: Mapping[str, Any]) -> list[str]:
    lines = [
        f"`{mode}`, {figures['yardstick']}, {figures['scans']} scans of the `{figures['split']}` "
        f"set, {figures['restorations']} restorations:",
        "",
        "| figure | value |",
        "|---|---|",
    ]
    lines += [
        f"| {key.replace('_', ' ')} | {value:.3f} |"
        for key, value in figures.items()
        if isinstance(value, float)
    ]
    return [*lines, ""]
