"""From trained networks to model bundles: weights, settings, calibration, card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle import schema
from ..bundle.bundle import Bundle, read_bundle
from ..bundle.card import brain_card, model_card
from ..bundle.write import rewrite_bundle, write_bundle
from ..errors import BundleError
from ..model_space import CLIP
from ..networks.layers import fold_weight_norm
from .config import Config, as_json
from .networks.brain import extraction_dice, load_heads

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..networks.masked import MaskedPrior
    from ..networks.pixelsnail import PixelSNAIL
    from ..networks.vae import VAE
    from ..networks.vqvae import VQVAE
    from ..preprocessing.brain_extraction import BrainNetworks
    from .pipeline import TrainingPipeline


def half(network: nn.Module) -> dict[str, Tensor]:
    """Weights as float16, the codebook as it is: a key moved is a code changed."""
    return {
        name: value.half() if value.is_floating_point() and "codebook" not in name else value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def export_model(
    pipeline: TrainingPipeline, vqvae: VQVAE, prior: PixelSNAIL, masked: MaskedPrior
) -> Bundle:
    """Write the anomaly model into the folder of work; it is not calibrated yet.

    A bundle of the same weights that is there already stays as it is, with its calibration.
    """
    config = pipeline.config
    own = {
        "kind": "anomaly",
        "vqvae": asdict(config.vqvae.network),
        "prior": {
            "kind": "pixelsnail",
            **config.code_grid,
            **asdict(config.prior.network),
        },
        "masked": {**config.code_grid, **asdict(config.masked.network)},
        "scoring": asdict(config.scoring),
    }
    weights = {
        schema.VQVAE: half(vqvae),
        schema.PRIOR: half(fold_weight_norm(prior)),
        schema.MASKED: half(masked),
    }
    return _export(pipeline.folder / config.model.name, own, weights, pipeline)


def export_baseline(pipeline: TrainingPipeline, vae: VAE) -> Bundle:
    """Write the VAE into the folder of work; as :func:`export_model`."""
    config = pipeline.config
    own = {
        "kind": "vae",
        "vae": {
            "shape": [config.grid.rows, config.grid.columns],
            **asdict(config.baseline.network),
        },
    }
    name = f"{config.model.name}-vae"
    return _export(pipeline.folder / name, own, {schema.VAE: half(vae)}, pipeline)


def export_brain(pipeline: TrainingPipeline, networks: BrainNetworks) -> Bundle:
    """Write the brain-extraction bundle into the folder of work, with its figures."""
    config = pipeline.config
    tune = [subject for subject in pipeline.subjects if subject.split == "tune"]
    spacing = config.grid.spacing_mm
    figures = extraction_dice(networks, load_heads(tune, spacing, lambda _: None), pipeline.device)
    told: dict[str, Any] = {
        "name": schema.BRAIN_BUNDLE,
        "kind": "brain-extraction",
        "modality": config.model.modality,
        "spacing_mm": spacing,
        "unet": asdict(config.brain.network),
        "locator": asdict(config.brain.network),
        "probability": networks.threshold,
        "training": {
            "data": config.model.data,
            "population": config.model.population,
            "subjects": [s.name for s in pipeline.subjects if s.split == "train"],
            "sites": sorted({s.site for s in pipeline.subjects if s.split == "train" and s.site}),
            "config": as_json(config),
        },
        "metrics": {"split": "tune", "scans": len(tune), **figures},
        "licence": config.model.licence,
    }
    weights = {schema.OUTLINE: half(networks.outline)}
    if networks.locator is not None:
        weights[schema.LOCATOR] = half(networks.locator)
    return write_bundle(
        pipeline.folder / schema.BRAIN_BUNDLE, told, weights, None, brain_card(told)
    )


def write_adapted(
    folder: Path, bundle: Bundle, calibration: Mapping[str, Any], places: Mapping[str, Tensor]
) -> Bundle:
    """Write a model of the same weights that knows other scans as healthy.

    What was measured of the model is left out: it is of those that it knew before.
    """
    return rewrite_bundle(bundle, folder, metrics={}, calibration=calibration, places=places)


def is_adapted(folder: Path, bundle: Bundle) -> bool:
    """Whether in a folder lies a model that :func:`write_adapted` made of this one."""
    try:
        return read_bundle(folder).config.get("adapted_from") == bundle.name
    except BundleError:
        return False


def _export(
    folder: Path,
    own: dict[str, Any],
    weights: dict[str, dict[str, Tensor]],
    pipeline: TrainingPipeline,
) -> Bundle:
    config = _told(pipeline.config, folder.name, own, pipeline)
    if pipeline.atlas is not None:
        import torch

        weights = {**weights, schema.ATLAS: {"mean": torch.from_numpy(pipeline.atlas)}}
    if _has(folder, weights):
        pipeline.report(f"{folder} holds these weights already, and stays as it is")
        return read_bundle(folder)
    return write_bundle(folder, config, weights, None, model_card(config, {}))


def _told(
    config: Config, name: str, own: Mapping[str, Any], pipeline: TrainingPipeline
) -> dict[str, Any]:
    """Settings of an anomaly model, for ``model.json``; nothing is measured yet."""
    train = pipeline.prepared("train")
    return {
        "name": name,
        **own,
        "modality": config.model.modality,
        "grid": [config.grid.rows, config.grid.columns],
        "spacing_mm": config.grid.spacing_mm,
        "orientation": "slices inferior to superior, rows anterior to posterior, columns right to "
        "left",
        "intensity": {
            "rule": "(value - median) / (interquartile range / 1.349) of the brain",
            "clip": CLIP,
            "shading": 0 if pipeline.atlas is None else config.alignment.shading,
        },
        "alignment": None
        if pipeline.atlas is None
        else {
            "rule": "rigid, of highest correlation with the mean of the training scans, group-wise",
            "atlas": schema.ATLAS,
        },
        "brain_model": schema.BRAIN_BUNDLE,
        "training": {
            "data": config.model.data,
            "population": config.model.population,
            "subjects": list(train.scans),
            "people": sorted({s.owner for s in pipeline.subjects if s.name in train.scans}),
            "sha256": list(train.scans.values()),
            "left_out": list(train.left_out),  # names alone: reasons name folders
            "config": as_json(config),
        },
        "metrics": {},
        "licence": config.model.licence,
    }


def _has(folder: Path, weights: Mapping[str, Mapping[str, Tensor]]) -> bool:
    """Whether a bundle is there that has just these weights."""
    import torch

    try:
        bundle = read_bundle(folder)
        for file, tensors in weights.items():
            kept = bundle.tensors(file)
            if kept.keys() != tensors.keys():
                return False
            if not all(torch.equal(kept[key], value.cpu()) for key, value in tensors.items()):
                return False
    except BundleError:
        return False
    return True
