"""The shipped models: how large they are and how long they are trained.

``python -m LatentSpaceRestorationLib.training --help`` runs it; every step goes on from its
checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..networks.pixelsnail import PixelSNAIL
from ..networks.unet import UNet3D
from ..networks.vqvae import VQVAE
from ..preprocessing import Grid
from ..scoring import ModeSettings
from .brain import load_heads, train_brain
from .loop import Schedule
from .prior import Codes, encode_slices, train_prior
from .slices import Slices, prepare_slices
from .subjects import Subject, of_split
from .vqvae import train_vqvae

Report = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """Sizes and schedules of the shipped models ``brain-t1`` and ``brain-extraction``.

    Attributes:
        grid: the model's grid.
        vqvae, prior, unet: arguments of the networks.
        vqvae_schedule, prior_schedule, unet_schedule: of their trainings.
        copies: augmented copies of each training slice whose codes the prior sees.
        code_dropout: see :func:`prior.train_prior`.
        scoring: of the default mode.
    """

    grid: Grid = Grid(104, 80, 2.0)
    vqvae: dict[str, Any] = field(
        default_factory=lambda: {
            "codes": 128,
            "channels": [16, 48, 96],
            "code_dim": 64,
            "encoder_blocks": 1,
            "decoder_blocks": 1,
            "encoder_position": False,
            "dropout": 0.0,
        }
    )
    vqvae_schedule: Schedule = Schedule(1100, batch=32, learning_rate=1.5e-3, average=0.99)
    prior: dict[str, Any] = field(
        default_factory=lambda: {
            "codes": 128,
            "shape": [26, 20],
            "channels": 64,
            "blocks": 3,
            "pairs": 2,
            "attention_stride": 2,
            "key_size": 16,
            "value_size": 64,
            "dropout": 0.1,
        }
    )
    prior_schedule: Schedule = Schedule(1600, batch=32, learning_rate=1.5e-3, average=0.995)
    copies: int = 3
    code_dropout: float = 0.0
    scoring: ModeSettings = ModeSettings()
    unet: dict[str, Any] = field(default_factory=lambda: {"channels": [16, 32, 64]})
    unet_schedule: Schedule = Schedule(1200, learning_rate=3e-3, warmup=20, average=0.99)


@dataclass(frozen=True)
class Workshop:
    """A recipe at work: which scans, and the folder of checkpoints and prepared data."""

    recipe: Recipe
    subjects: list[Subject]
    folder: Path
    device: str = "cpu"
    minutes: float = float("inf")
    report: Report = print

    def slices(self, split: str) -> Slices:
        """Prepared slices of a split, made once."""
        file = self.folder / f"{split}.npz"
        if not file.is_file():
            self.report(f"preparing the slices of the {split} scans")
            prepare_slices(list(of_split(self.subjects, split)), self.recipe.grid).save(file)
        return Slices.load(file)

    def vqvae(self) -> VQVAE:
        """The trained VQ-VAE."""
        return train_vqvae(
            self.recipe.vqvae,
            self.slices("train"),
            self.slices("tune"),
            self.recipe.vqvae_schedule,
            self.folder / "vqvae.pt",
            device=self.device,
            minutes=self.minutes,
            report=self.report,
        )

    def codes(self, vqvae: VQVAE, split: str, copies: int) -> Codes:
        """Codes of a split, made once."""
        file = self.folder / f"codes-{split}-{copies}.npz"
        if not file.is_file():
            codes = encode_slices(
                vqvae, self.slices(split), copies, device=self.device, report=self.report
            )
            codes.save(file)
        return Codes.load(file)

    def prior(self, vqvae: VQVAE) -> PixelSNAIL:
        """The trained prior."""
        return train_prior(
            self.recipe.prior,
            self.codes(vqvae, "train", self.recipe.copies),
            self.codes(vqvae, "tune", 0),
            self.recipe.prior_schedule,
            self.folder / "prior.pt",
            code_dropout=self.recipe.code_dropout,
            device=self.device,
            minutes=self.minutes,
            report=self.report,
        )

    def brain(self) -> UNet3D:
        """The trained brain extraction."""
        spacing = self.recipe.grid.spacing_mm
        return train_brain(
            self.recipe.unet,
            load_heads(list(of_split(self.subjects, "train")), spacing),
            load_heads(list(of_split(self.subjects, "tune")), spacing),
            self.recipe.unet_schedule,
            self.folder / "unet.pt",
            device=self.device,
            minutes=self.minutes,
            report=self.report,
        )
