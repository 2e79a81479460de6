"""Settings at work: scans into slices, slices into networks, each step going on from its files."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.read import read_subjects
from ..datasets.splits import Splits
from ..datasets.subjects import Subject, of_split, write_table
from ..errors import Cancelled, ConfigError, InputError
from ..io.files import write_whole
from ..networks import distributed
from ..networks.masked import MaskedPrior
from ..networks.pixelsnail import PixelSNAIL
from ..networks.vae import VAE
from ..networks.vqvae import VQVAE
from ..preprocessing.brain_extraction import BrainNetworks
from ..sampling.restore import nll, restore
from .config import Config, write_config
from .data.atlas import make_atlas
from .data.slice_cache import Brains, PreparedSet, prepare_set
from .engine.checkpoint import read_checkpoint
from .engine.run import Run, Schedule
from .networks.brain import load_heads, train_brain
from .networks.prior import Codes, encode_slices, train_masked, train_prior
from .networks.vae import train_vae
from .networks.vqvae import tiles, train_vqvae

#: Files of a folder of work.
SUBJECTS, SETTINGS, SLICES = "subjects.tsv", "config.toml", "slices"
#: Between lines on how many scans are prepared.
_REPORT_SECONDS = 2.0


@dataclass(frozen=True)
class TrainingPipeline:
    """A folder of work, and everything that is made in it.

    In a training by ``torchrun`` each process has one; the first writes.

    Attributes:
        config: the settings.
        folder: of checkpoints and prepared slices.
        device: torch device.
        minutes: time for what is asked of this object.
        report: takes a line of text.
        progress: whether to draw progress bars.
        tensorboard: whether to write TensorBoard's logs into the folder.
    """

    config: Config
    folder: Path
    device: str = "cpu"
    minutes: float = math.inf
    report: Callable[[str], None] = print
    progress: bool = False
    tensorboard: bool = False
    _began: float = field(default_factory=time.monotonic)
    _sets: dict[str, PreparedSet] = field(default_factory=dict)

    def begin(self) -> None:
        """Write the settings and the table of subjects into the folder.

        Raises:
            ConfigError: the settings name no scans.
            InputError: the scans cannot be used.
            OutputError: the folder cannot be written.
        """
        if distributed.rank() == 0:
            subjects = self.subjects
            write_whole(self.folder / SETTINGS, write_config(self.config).encode())
            write_table(self.folder / SUBJECTS, subjects)
        distributed.wait()

    @cached_property
    def subjects(self) -> list[Subject]:
        """Every scan, with its set."""
        data = self.config.data
        if not data.source:
            raise ConfigError("the settings name no scans; set data.source to a table or folder")
        return read_subjects(
            *map(Path, (data.source, *data.further)),
            splits=Splits(data.calibrate, data.tune, data.seed, self.folder / SUBJECTS),
            report=self._say,
        )

    @cached_property
    def atlas(self) -> np.ndarray | None:
        """What heads are aligned with, (depths, h, w); None if they are taken as they lie."""
        if not self.config.alignment.align:
            return None
        with distributed.first_goes_first():
            return make_atlas(
                self._of_split("train"),
                self.config.grid,
                self.folder / SLICES,
                Brains([self.folder], self.device),
                report=self._say,
                progress=self._through("aligning train"),
            )

    def prepared(self, split: str) -> PreparedSet:
        """The slices of a set; of the training set with the copies.

        Raises:
            InputError: none of the scans can be used, or one of them is in another set as well.
        """
        if split not in self._sets:
            atlas = self.atlas
            with distributed.first_goes_first():
                made = prepare_set(
                    self._of_split(split),
                    self.config.grid,
                    self.folder / SLICES,
                    Brains([self.folder], self.device),
                    atlas=atlas,
                    shading=self.config.alignment.shading,
                    augmentation=self.config.volume_augmentation if split == "train" else None,
                    balance=self.config.data.balance if split == "train" else 0.0,
                    report=self._say,
                    progress=self._through(f"preparing {split}"),
                )
            _refuse_twins(self._sets, split, made)
            self._sets[split] = made
        return self._sets[split]

    def vqvae(self) -> VQVAE:
        """The trained VQ-VAE.

        Raises:
            Cancelled: the time is over before the last step; so with the others.
        """
        settings = self.config.vqvae
        run = self._run("vqvae", settings.training, settings, self.config.augmentation)
        network = train_vqvae(
            asdict(settings.network),
            self.prepared("train").slices,
            self.prepared("tune").slices,
            run,
            self.config.augmentation,
            codebook_start=settings.codebook_start,
            gradient=settings.gradient,
        )
        self._finished(run)
        return network

    def prior(self, vqvae: VQVAE) -> PixelSNAIL:
        """The trained prior of a VQ-VAE."""
        settings = self.config.prior
        run = self._run(
            "prior",
            settings.training,
            settings,
            self.config.augmentation,
            {"vqvae": weights_hash(vqvae)},
        )
        held_out = self.codes(vqvae, "tune", 0)
        shown = torch.linspace(0, len(held_out.values) - 1, 8).long()[1:-1]
        network = train_prior(
            {**self.config.code_grid, **asdict(settings.network)},
            self.codes(vqvae, "train", settings.copies),
            held_out,
            run,
            code_dropout=settings.code_dropout,
            pictures=lambda model: {
                "reconstructions and restorations": _restorations(vqvae, model, held_out, shown)
            },
        )
        self._finished(run)
        return network

    def masked(self, vqvae: VQVAE) -> MaskedPrior:
        """The trained masked prior of a VQ-VAE."""
        settings = self.config.masked
        run = self._run(
            "masked",
            settings.training,
            settings,
            self.config.augmentation,
            {"vqvae": weights_hash(vqvae)},
        )
        network = train_masked(
            {**self.config.code_grid, **asdict(settings.network)},
            self.codes(vqvae, "train", settings.copies),
            self.codes(vqvae, "tune", 0),
            run,
        )
        self._finished(run)
        return network

    def baseline(self) -> VAE:
        """The trained VAE."""
        settings = self.config.baseline
        run = self._run("vae", settings.training, settings, self.config.augmentation)
        network = train_vae(
            {
                "shape": [self.config.grid.rows, self.config.grid.columns],
                **asdict(settings.network),
            },
            self.prepared("train").slices,
            self.prepared("tune").slices,
            run,
            self.config.augmentation,
        )
        self._finished(run)
        return network

    def brain(self) -> BrainNetworks:
        """The trained networks of brain extraction."""
        settings = self.config.brain
        spacing = self.config.grid.spacing_mm
        train = load_heads(self._of_split("train"), spacing, self._say)
        tune = load_heads(self._of_split("tune"), spacing, self._say)
        arrays = [*(head.array for head in train.heads), *train.masks]
        key = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        networks = []
        for name, schedule in (("locator", settings.locator), ("unet", settings.training)):
            told = {"network": asdict(settings.network), "training": asdict(schedule)}
            run = self._run(name, schedule, told, data=key[:32])
            coarse = name == "locator"
            networks.append(train_brain(told["network"], train, tune, run, coarse=coarse))
            self._finished(run)
        return BrainNetworks(networks[1], networks[0], settings.probability)

    def codes(self, vqvae: VQVAE, split: str, copies: int) -> Codes:
        """Codes of a set's slices, made once for a VQ-VAE."""
        made = self.prepared(split)
        parts = (weights_hash(vqvae), made.key, copies, self.config.augmentation)
        key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        file = self.folder / "codes" / f"{split}-{key}.npz"
        if distributed.rank() == 0 and not file.is_file():
            encode_slices(
                vqvae,
                made.slices,
                copies,
                self.config.augmentation,
                device=self.device,
                report=self._say,
            ).save(file)
        distributed.wait()
        return Codes.load(file)

    def _run(
        self,
        name: str,
        schedule: Schedule,
        settings: Any,
        augmentation: Any = None,
        more: Mapping[str, Any] | None = None,
        data: str | None = None,
    ) -> Run:
        told = dict(settings) if isinstance(settings, Mapping) else asdict(settings)
        # How often it is kept does not change what is made.
        told["training"].pop("checkpoint_minutes")
        identity = {
            name: told,
            "grid": asdict(self.config.grid),
            "augmentation": asdict(augmentation) if augmentation is not None else {},
            "slices": data or self.prepared("train").key,
            **(more or {}),
        }
        return Run(
            schedule,
            self.folder / f"{name}.pt",
            device=self.device,
            minutes=self.minutes - (time.monotonic() - self._began) / 60.0,
            report=self.report,
            progress=self.progress,
            tensorboard=self.folder / "tensorboard" / name if self.tensorboard else None,
            identity=identity,
        )

    def _finished(self, run: Run) -> None:
        state = read_checkpoint(run.checkpoint, "cpu", run.identity)
        if state is None or state["step"] < run.schedule.steps:
            step = state["step"] if state else 0
            raise Cancelled(
                f"the time is over at step {step} of {run.schedule.steps}, kept in "
                f"{run.checkpoint}; the same command goes on from there"
            )

    def _of_split(self, split: str) -> list[Subject]:
        subjects = list(of_split(self.subjects, split))
        if not subjects:
            raise InputError(
                f"{self.config.data.source}: has no {split} scans; give the column split some, or "
                "leave it out to have the sets drawn"
            )
        return subjects

    def _say(self, line: str) -> None:
        if distributed.rank() == 0:
            self.report(line)

    def _through(self, what: str) -> Callable[[list[Subject]], Iterable[Subject]]:
        if distributed.rank() > 0:
            return iter
        if not self.progress:
            return lambda subjects: _counted(subjects, what, self.report)

        def through(subjects: list[Subject]) -> Iterable[Subject]:
            from tqdm import tqdm

            return tqdm(subjects, desc=what, unit="scan", dynamic_ncols=True)

        return through


def _counted(
    subjects: list[Subject], what: str, report: Callable[[str], None]
) -> Iterator[Subject]:
    """Subjects, with a line every so often on how many are done."""
    told = time.monotonic()
    for done, subject in enumerate(subjects):
        if time.monotonic() - told > _REPORT_SECONDS:
            told = time.monotonic()
            report(f"{what}: {done} of {len(subjects)}")
        yield subject


def weights_hash(network: nn.Module) -> str:
    """SHA-256 of a network's weights."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()[:32]


def _refuse_twins(sets: Mapping[str, PreparedSet], split: str, made: PreparedSet) -> None:
    """The same bytes in two sets are one person in two sets, whatever the names."""
    for other, before in sets.items():
        names = {digest: name for name, digest in before.scans.items()}
        for name, digest in made.scans.items():
            if digest in names:
                raise InputError(
                    f"{name} of the {split} scans and {names[digest]} of the {other} scans are the "
                    "same image; a person belongs to one set"
                )


def _restorations(vqvae: VQVAE, model: nn.Module, held_out: Codes, pick: Tensor) -> Tensor:
    """Held-out slices as the VQ-VAE has them, and with a fifth of their codes drawn anew."""
    prior = distributed.bare(model)
    assert isinstance(prior, PixelSNAIL)
    device = vqvae.codebook.keys.device
    codes = torch.from_numpy(held_out.values)[pick].long().to(device)
    position = torch.from_numpy(held_out.position)[pick].to(device)
    with torch.inference_mode():
        likelihood = nll(prior, codes, position)
        limit = float(np.quantile(likelihood.cpu().numpy(), 0.8))
        restored = restore(
            prior,
            codes,
            position,
            thresholds=np.full(tuple(codes.shape), limit),
            restorations=1,
            seed=0,
            slice_ids=pick.tolist(),
            sampler="skip-ahead",
        )
        rows = [vqvae.decode(c, position).cpu() for c in (codes, restored[:, 0])]
    return tiles(rows)
