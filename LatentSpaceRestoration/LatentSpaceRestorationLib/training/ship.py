"""From checkpoints to model bundles: weights, calibration, card."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle import Bundle, read_bundle, write_bundle
from ..detector import BRAIN_BUNDLE, Detector
from ..io import read_volume
from ..networks.layers import fold_weight_norm
from ..preprocessing import CLIP
from ..scoring import ModeSettings
from .calibrate import HealthyScan, calibrate_mode, code_quantiles, to_files
from .subjects import of_split

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .recipe import Workshop

LICENCE = "CC BY-SA 3.0"
ATTRIBUTION = "IXI data set, brain-development.org, CC BY-SA 3.0"


def half(network: nn.Module) -> dict[str, Tensor]:
    """Weights as float16, the codebook as it is: a key moved is a code changed."""
    return {
        name: value.half() if value.is_floating_point() and "codebook" not in name else value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def ship_brain(shop: Workshop, models: Path) -> Bundle:
    """Write the brain-extraction bundle into the ``models`` folder."""
    from .brain import extraction_dice, load_heads

    network = shop.brain()
    spacing = shop.recipe.grid.spacing_mm
    figures = extraction_dice(network, *load_heads(list(of_split(shop.subjects, "tune")), spacing))
    config: dict[str, Any] = {
        "name": BRAIN_BUNDLE,
        "kind": "brain-extraction",
        "modality": "T1",
        "spacing_mm": spacing,
        "unet": shop.recipe.unet,
        "training": {"data": ATTRIBUTION, "subjects": _names(shop, "train")},
        "metrics": {"split": "tune", **figures},
        "licence": LICENCE,
    }
    card = (
        "# brain-extraction\n\nA small 3-D U-Net that marks the brain in a T1-weighted head scan "
        f"at {spacing:g} mm.\n\n- Trained on: {len(_names(shop, 'train'))} healthy adults "
        f"({ATTRIBUTION}), with brain masks made from an automatic parcellation; contrast, bias "
        "field, noise, resolution, position and field of view were varied.\n"
        f"- Measured on {len(_names(shop, 'tune'))} other healthy adults of the same data set: "
        f"median Dice {figures['dice_median']:.3f}, lowest {figures['dice_min']:.3f}.\n"
        f"- Licence of the weights: {LICENCE}, with the attribution above.\n"
        "- Limits: one scanner at one site; adults; T1 without contrast agent.\n"
        "- For research. Not for diagnosis.\n"
    )
    return write_bundle(
        models / BRAIN_BUNDLE, config, {"unet.safetensors": half(network)}, None, card
    )


def model_config(shop: Workshop, name: str) -> dict[str, Any]:
    """Settings of an anomaly model, for ``model.json``; nothing is measured yet."""
    recipe = shop.recipe
    return {
        "name": name,
        "kind": "anomaly",
        "modality": "T1",
        "grid": [recipe.grid.rows, recipe.grid.columns],
        "spacing_mm": recipe.grid.spacing_mm,
        "orientation": "slices inferior to superior, rows anterior to posterior, columns right to "
        "left",
        "intensity": {
            "rule": "(value - median) / (interquartile range / 1.349) of the brain",
            "clip": CLIP,
        },
        "vqvae": recipe.vqvae,
        "prior": {"kind": "pixelsnail", **recipe.prior},
        "scoring": asdict(recipe.scoring),
        "training": {"data": ATTRIBUTION, "subjects": _names(shop, "train")},
        "metrics": {},
        "licence": LICENCE,
    }


def ship_model(
    shop: Workshop,
    models: Path,
    name: str = "brain-t1",
    restorations: int = 15,
) -> Bundle:
    """Write the anomaly model: weights, then the calibration that these very weights give.

    Args:
        shop: recipe, subjects and checkpoints.
        models: folder that the bundle goes into; the brain-extraction bundle lies there already.
        name: of the bundle.
        restorations: S of the calibration.
    """
    vqvae = shop.vqvae()
    prior = fold_weight_norm(shop.prior(vqvae))
    tensors = {"vqvae.safetensors": half(vqvae), "prior.safetensors": half(prior)}
    config = model_config(shop, name)
    with tempfile.TemporaryDirectory() as folder:
        staged = write_bundle(Path(folder) / name, config, tensors)
        detector = Detector.load(staged.folder, shop.device, search=[models])
        scans = []
        for subject in of_split(shop.subjects, "calibrate"):
            prepared, _ = detector.prepare(read_volume(subject.scan))
            scans.append(HealthyScan(subject.name, prepared, detector.read(prepared)))
        modes = {}
        for mode in ("default", "paper"):
            shop.report(f"calibrating mode {mode}")
            modes[mode] = calibrate_mode(
                detector,
                scans,
                ModeSettings.of(config, mode),
                restorations=restorations,
                report=shop.report,
            )
    calibration, place = to_files([s.name for s in scans], code_quantiles(scans), modes)
    tensors["place.safetensors"] = place
    return write_bundle(models / name, config, tensors, calibration, model_card(config))


def add_metrics(folder: Path, metrics: dict[str, Any]) -> Bundle:
    """Write measured figures into a bundle's settings and card; weights stay as they are."""
    bundle = read_bundle(folder)
    config = {key: value for key, value in bundle.config.items() if key != "files"}
    config["metrics"] = metrics
    files = [file for file in bundle.config["files"] if file.endswith(".safetensors")]
    tensors = {file: bundle.tensors(file) for file in files}
    return write_bundle(folder, config, tensors, bundle.calibration, model_card(config))


def model_card(config: dict[str, Any]) -> str:
    """The card of an anomaly model, from its settings and measured figures."""
    subjects = len(config["training"]["subjects"])
    lines = [
        f"# {config['name']}",
        "",
        "A VQ-VAE and a PixelSNAIL prior of healthy T1-weighted brains: what the prior finds "
        "unlikely is replaced, and the difference is the anomaly map (Naval Marimont and Tarroni, "
        "ISBI 2021).",
        "",
        "**For research. Not for diagnosis.**",
        "",
        "## Data",
        "",
        f"- Trained on {subjects} healthy adults aged 20 to 82, T1-weighted, one 3 T scanner at "
        f"one site, 2 mm: {config['training']['data']}.",
        "- Thresholds and percentiles come from 20 other healthy adults of the same data set; with "
        "20 scans no percentile above 95 can be claimed.",
        f"- Licence of the weights: {config['licence']}, with that attribution.",
        "",
        "## Figures",
        "",
    ]
    if not config["metrics"]:
        lines.append("Not measured yet.")
    for mode, figures in config["metrics"].items():
        lines += [
            f"Mode `{mode}`, {figures['yardstick']}, {figures['scans']} scans of the "
            f"`{figures['split']}` subjects (half untouched), {figures['restorations']} "
            "restorations:",
            "",
            "| figure | value |",
            "|---|---|",
        ]
        lines += [
            f"| {key.replace('_', ' ')} | {value:.3f} |"
            for key, value in figures.items()
            if isinstance(value, float)
        ]
        lines.append("")
    lines += [
        "",
        "The scoring of the default mode was chosen on these same scans, so these figures are "
        "somewhat kind. The spheres are synthetic; figures on real lesions are not implied.",
        "",
        "## Limits",
        "",
        "- Adults; T1 without contrast agent; other scanners, field strengths and thick slices "
        "shift all intensities and have not been measured.",
        "- Axial slices are scored one by one; what is normal in each slice but not in their "
        "sequence is not seen.",
        "- Small (below about 8 mm) and iso-intense lesions are likely missed. Anatomical variants "
        "such as large ventricles are flagged.",
        "",
    ]
    return "\n".join(lines)


def _names(shop: Workshop, split: str) -> list[str]:
    return [subject.name for subject in of_split(shop.subjects, split)]
