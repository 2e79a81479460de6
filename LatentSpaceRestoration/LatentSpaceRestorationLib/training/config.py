"""The settings of a model's training: one TOML file, checked, with the shipped recipe as default.

Every key has a default; :func:`write_config` writes them all.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..errors import ConfigError
from ..io.files import read_text
from ..methods.settings import ModeSettings
from ..model_space import Grid
from .data.augmentation import Augmentation
from .data.volume_augmentation import VolumeAugmentation
from .engine.run import PRECISIONS, Schedule

_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class ModelSettings:
    """What the model says of itself.

    Attributes:
        name: of its folder.
        modality: of the scans.
        population: who it was trained on, as the model card says it.
        data: where the scans come from, with the attribution that their licence asks for.
        licence: of the weights.
    """

    name: str = "my-model"
    modality: str = "T1"
    population: str = "healthy people"
    data: str = "own scans"
    licence: str = "not stated"


@dataclass(frozen=True)
class DataSettings:
    """Which scans, and how persons are shared out where the source does not say.

    Attributes:
        source: table or folder, relative to the file of settings.
        further: the same, of other sites.
        balance: how much a training scan of a site of few counts: for (scans of the largest site /
            scans of its own) to this power; 0 for all alike.
        calibrate, tune: shares of all persons.
        seed: of the draw.
    """

    source: str = ""
    further: tuple[str, ...] = ()
    balance: float = 0.4
    calibrate: float = 0.2
    tune: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class AlignmentSettings:
    """What is done by the mean of the training scans before anything sees a scan.

    Attributes:
        align: whether heads are laid as it lies.
        shading: order, in space, of the smooth field that a scan's intensities are divided by, so
            that they are most like it; 0 takes them as they are. Without ``align`` they are.
    """

    align: bool = True
    shading: int = 0


@dataclass(frozen=True)
class VQVAENetwork:
    """Arguments of :class:`networks.vqvae.VQVAE`."""

    codes: int = 128
    channels: tuple[int, ...] = (16, 48, 96)
    code_dim: int = 64
    encoder_blocks: int = 1
    decoder_blocks: int = 1
    encoder_position: bool = False
    dropout: float = 0.0
    beta: float = 0.25


@dataclass(frozen=True)
class VQVAESettings:
    """The VQ-VAE.

    Attributes:
        codebook_start: steps as a plain autoencoder before there are codes.
        gradient: weight, beside that of the intensities, of the differences between neighbours.
    """

    network: VQVAENetwork = VQVAENetwork()
    codebook_start: int = 150
    gradient: float = 0.0
    training: Schedule = Schedule(1100, batch=32, learning_rate=1.5e-3, average=0.99)


@dataclass(frozen=True)
class PriorNetwork:
    """Arguments of :class:`networks.pixelsnail.PixelSNAIL`; the grid's follow from the VQ-VAE."""

    channels: int = 64
    blocks: int = 3
    pairs: int = 2
    attention_stride: int = 2
    key_size: int = 16
    value_size: int = 64
    dropout: float = 0.1


@dataclass(frozen=True)
class PriorSettings:
    """The prior. ``copies``: augmented ones of each slice whose codes it sees."""

    network: PriorNetwork = PriorNetwork()
    copies: int = 3
    code_dropout: float = 0.0
    training: Schedule = Schedule(1600, batch=32, learning_rate=1.5e-3, average=0.995)


@dataclass(frozen=True)
class MaskedNetwork:
    """Arguments of :class:`networks.masked.MaskedPrior`; the grid's follow from the VQ-VAE."""

    channels: tuple[int, ...] = (96, 160, 192)
    blocks: tuple[int, ...] = (2, 3, 2)
    dropout: float = 0.1


@dataclass(frozen=True)
class MaskedSettings:
    """The masked prior. ``copies``: augmented ones of each slice whose codes it sees."""

    network: MaskedNetwork = MaskedNetwork()
    copies: int = 12
    training: Schedule = Schedule(9000, batch=32, learning_rate=1.2e-3, warmup=100, average=0.998)


@dataclass(frozen=True)
class BrainNetwork:
    """Arguments of :class:`networks.unet.UNet3D`."""

    channels: tuple[int, ...] = (16, 32, 64, 96)


@dataclass(frozen=True)
class BrainSettings:
    """Brain extraction: the network that finds where the brain is, and the one of its outline.

    ``probability``: above which a voxel is brain.
    """

    probability: float = 0.65
    network: BrainNetwork = BrainNetwork()
    locator: Schedule = Schedule(600, batch=1, learning_rate=3e-3, warmup=20, average=0.99)
    training: Schedule = Schedule(4400, batch=1, learning_rate=3e-3, warmup=20, average=0.995)


@dataclass(frozen=True)
class VAENetwork:
    """Arguments of :class:`networks.vae.VAE`; the shape follows from the grid."""

    latents: int = 128
    channels: tuple[int, ...] = (16, 32, 64, 64)
    neck: int = 4
    encoder_blocks: int = 1
    decoder_blocks: int = 1
    dropout: float = 0.0
    beta: float = 1.0


@dataclass(frozen=True)
class BaselineSettings:
    """The VAE that the method is compared with."""

    network: VAENetwork = VAENetwork()
    training: Schedule = Schedule(2000, batch=32, learning_rate=1.5e-3, average=0.99)


@dataclass(frozen=True)
class Config:
    """Everything that a training is made with."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    grid: Grid = Grid(104, 80, 2.0)
    alignment: AlignmentSettings = AlignmentSettings()
    vqvae: VQVAESettings = VQVAESettings()
    prior: PriorSettings = PriorSettings()
    masked: MaskedSettings = MaskedSettings()
    brain: BrainSettings = BrainSettings()
    baseline: BaselineSettings = BaselineSettings()
    augmentation: Augmentation = Augmentation()
    volume_augmentation: VolumeAugmentation = VolumeAugmentation()
    scoring: ModeSettings = ModeSettings()

    @property
    def code_shape(self) -> tuple[int, int]:
        """(h, w) of a slice's codes."""
        step = 2 ** (len(self.vqvae.network.channels) - 1)
        return self.grid.rows // step, self.grid.columns // step

    @property
    def code_grid(self) -> dict[str, Any]:
        """What every prior is told of the codes."""
        return {"codes": self.vqvae.network.codes, "shape": list(self.code_shape)}


def read_config(file: Path, changes: Iterable[str] = ()) -> Config:
    """Read settings.

    Args:
        file: TOML; ``data.source`` and ``data.further`` in it are relative to its folder.
        changes: ``section.key=value``, as they would stand in the file.

    Raises:
        ConfigError: in one line: the file cannot be read, a key is unknown, or a value is of
            another type or out of range.
    """
    try:
        told = tomllib.loads(read_text(file))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); check the path") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: is not TOML ({error}); mend it") from error
    config = _merged(Config(), told, str(file))
    data = config.data

    def found(source: str) -> str:
        return str(file.parent / Path(source).expanduser()) if source else ""

    data = replace(data, source=found(data.source), further=tuple(map(found, data.further)))
    config = replace(config, data=data)
    for change in changes:
        config = _merged(config, _parsed(change), f"--set {change}")
    _check(config, str(file))
    return config


def write_config(config: Config) -> str:
    """All settings as TOML."""
    lines: list[str] = []
    for name, section in _sections(config, ""):
        values = [(f.name, getattr(section, f.name)) for f in fields(section)]
        lines += [f"[{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in values if not is_dataclass(value)]
        lines += [""]
    return "\n".join(lines)


def as_json(config: Config) -> dict[str, Any]:
    """All settings for ``model.json``: without the folders of who trained it."""
    told = asdict(config)
    told["data"]["source"] = Path(config.data.source).name
    told["data"]["further"] = [Path(source).name for source in config.data.further]
    return told


def _sections(settings: Any, name: str) -> Iterator[tuple[str, Any]]:
    if name:
        yield name, settings
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield from _sections(value, f"{name}.{field.name}" if name else field.name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def _parsed(change: str) -> dict[str, Any]:
    """``a.b=value`` as a nested dictionary; what is no TOML value is a text."""
    key, equals, value = change.partition("=")
    if not equals or not re.fullmatch(r"\s*[\w-]+(\.[\w-]+)*\s*", key):
        raise ConfigError(f"--set {change}: is not of the form section.key=value; write it so")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed


def _merged(
    settings: _Settings, told: Mapping[str, Any], where: str, section: str = ""
) -> _Settings:
    """Settings with those of a table in their place."""
    known = get_type_hints(type(settings))
    names = {field.name for field in fields(settings)}  # type: ignore[arg-type]
    changed = {}
    for key, value in told.items():
        full = f"{section}.{key}" if section else key
        if key not in names:
            raise ConfigError(f"{where}: there is no setting {full}; {_nearest(full)}")
        current = getattr(settings, key)
        if is_dataclass(current) and not isinstance(current, type):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {full} is a section, not a value; write [{full}]")
            changed[key] = _merged(current, value, where, full)
        else:
            changed[key] = _typed(value, known[key], full, where)
    return replace(settings, **changed)  # type: ignore[type-var]


def _typed(value: Any, kind: Any, full: str, where: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if get_origin(kind) is tuple and isinstance(value, list):
        inner = get_args(kind)[0]
        return tuple(_typed(item, inner, full, where) for item in value)
    if get_origin(kind) is None and type(value) is kind:
        return value
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    raise ConfigError(
        f"{where}: {full} is {value!r} and should be {words.get(kind, 'a list of whole numbers')}"
    )


def _nearest(full: str) -> str:
    """The known setting that a name is most like."""
    keys = [
        f"{name}.{field.name}"
        for name, section in _sections(Config(), "")
        for field in fields(section)
    ]
    keys += [name for name, _ in _sections(Config(), "")]
    leaf = full.rsplit(".", 1)[-1]
    section = full.rpartition(".")[0]
    near = difflib.get_close_matches(full, keys, 1, 0.75) or [
        key for key in keys if key.rsplit(".", 1)[-1] == leaf
    ]
    if near:
        return f"the nearest is {near[0]}"
    inside = [key.rsplit(".", 1)[-1] for key in keys if key.rpartition(".")[0] == section]
    return f"there are {', '.join(inside)}" if inside else "see the page on training"


def _check(config: Config, where: str) -> None:
    """What types do not tell."""
    wrong = ""
    levels = {
        "vqvae.network.channels": config.vqvae.network.channels,
        "baseline.network.channels": config.baseline.network.channels,
    }
    for key, channels in levels.items():
        step = 2 ** max(0, len(channels) - 1)
        if config.grid.rows % step or config.grid.columns % step:
            wrong = f"grid.rows and grid.columns must be multiples of {step}, for {key}"
    for name, section in _sections(config, ""):
        for field in fields(section):
            value = getattr(section, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(n, int | float) and n < 0 for n in numbers):
                wrong = f"{name}.{field.name} is {value} and should not be negative"
        if isinstance(section, Schedule):
            if min(section.steps, section.batch, section.warmup) < 1:
                wrong = f"{name}.steps, batch and warmup should be at least 1"
            if section.precision not in PRECISIONS:
                wrong = (
                    f"{name}.precision is {section.precision!r} and should be one of {PRECISIONS}"
                )
    masked = config.masked.network
    if len(masked.channels) != len(masked.blocks) or any(c % 8 for c in masked.channels):
        wrong = "masked.network.channels should be multiples of 8, as many as masked.network.blocks"
    if config.data.calibrate + config.data.tune >= 1.0:
        wrong = "data.calibrate and data.tune leave nobody to train on; they are shares of 1"
    if config.grid.spacing_mm <= 0 or min(config.grid.rows, config.grid.columns) < 8:
        wrong = "grid.spacing_mm should be above 0, grid.rows and grid.columns at least 8"
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", config.model.name):
        wrong = f"model.name is {config.model.name!r}; use letters, digits, - and _"
    if wrong:
        raise ConfigError(f"{where}: {wrong}")
