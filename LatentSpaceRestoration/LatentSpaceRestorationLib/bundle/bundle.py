"""A trained model on disk: one folder with settings, weights, calibration and card.

``model.json`` lists the SHA-256 of every other file. A folder is a model only if its format
version is known and every listed file is unchanged; files that are not listed are never opened.
Weights are safetensors, which hold numbers and nothing that runs; no pickle is ever loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from ..io.files import digest_of_file, resources
from ..model_space import Grid
from .schema import (
    BRAIN_BUNDLE,
    CALIBRATION,
    CARD,
    CONFIG,
    ENDINGS,
    FORMAT_VERSION,
    KEYS,
    KIND_FILES,
    KIND_KEYS,
    fault,
    parse,
)

if TYPE_CHECKING:
    from torch import Tensor


_REPAIR = "install it again"
#: Bytes; a model's file is read into memory whole.
_LARGEST_FILE = 2**30


@dataclass(frozen=True)
class Bundle:
    """A model that was read and verified.

    Attributes:
        folder: where it lies.
        name: the model's name.
        config: parsed ``model.json``.
        calibration: parsed ``calibration.json``; empty if the model has none.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    calibration: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """``anomaly``, ``vae`` or ``brain-extraction``."""
        return str(self.config["kind"])

    @property
    def modality(self) -> str:
        """Kind of scan that it is for, such as ``T1w``; empty if it does not say."""
        return str(self.config.get("modality", ""))

    @property
    def spacing_mm(self) -> float:
        """Of its voxels."""
        return float(self.config["spacing_mm"])

    @property
    def grid(self) -> Grid:
        """The grid of its slices."""
        rows, columns = map(int, self.config["grid"])
        return Grid(rows, columns, self.spacing_mm)

    @property
    def shading(self) -> int:
        """Order of the shading that is taken off a scan; 0 is none."""
        return int(self.config.get("intensity", {}).get("shading", 0))

    @property
    def brain_model(self) -> str:
        """The model that finds the brain for it."""
        return str(self.config.get("brain_model", BRAIN_BUNDLE))

    @property
    def trained_on(self) -> frozenset[str]:
        """Names of the scans that it was trained on."""
        return frozenset(self.config.get("training", {}).get("subjects", ()))

    @property
    def calibrated_on(self) -> tuple[str, ...]:
        """Names of the healthy scans that it is calibrated on."""
        return tuple(self.calibration.get("scans", ()))

    @property
    def sites(self) -> tuple[str, ...]:
        """Where those were made; empty if that is not known."""
        return tuple(self.calibration.get("sites", ()))

    @property
    def modes(self) -> Mapping[str, Mapping[str, Any]]:
        """Healthy figures by method, or mode of ``lsr``, as far as it is calibrated."""
        modes: Mapping[str, Mapping[str, Any]] = self.calibration.get("modes", {})
        return modes

    def has_network(self, name: str) -> bool:
        """Whether it has a network that not every model of its kind has."""
        return name in self.config

    def has(self, file: str) -> bool:
        """Whether it has a file."""
        return file in self.config["files"]

    @property
    def digest(self) -> str:
        """SHA-256 of its settings, which hold those of all its files."""
        return digest_of_file(self.folder / CONFIG)

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum((self.folder / file).stat().st_size for file in self.config["files"])

    def tensors(self, file: str) -> dict[str, Tensor]:
        """Weights from one of the bundle's ``.safetensors`` files, on the CPU.

        The bytes that are loaded are the bytes that are checked, so a file that changed after the
        bundle was read is refused as well.

        Raises:
            BundleError: if the bundle lists no such file or the file is damaged.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load

        if not file.endswith(".safetensors") or not self.has(file):
            raise BundleError(f"model {self.name}: has no weights {file}; {_REPAIR}")
        data = _read_file(self.folder, file, self.config["files"][file])
        try:
            tensors = load(data)
        except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
            raise BundleError(f"model {self.name}: {file} is damaged; {_REPAIR}") from error
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise BundleError(
                    f"model {self.name}: {file} has values of {name[:100]!r} that are not finite; "
                    f"{_REPAIR}"
                )
        return tensors

    def weights(self, file: str) -> dict[str, Tensor]:
        """The same as float32, whatever they were stored as."""
        return {name: tensor.float() for name, tensor in self.tensors(file).items()}

    def misfit(self, error: Exception) -> BundleError:
        """The error to raise when a network cannot take the weights, from what it said."""
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return BundleError(
            f"the weights of model {self.name} do not fit its settings ({reason}); {_REPAIR}"
        )

    def card(self) -> str:
        """The model card's text; empty if the model has none."""
        if not self.has(CARD):
            return ""
        data = _read_file(self.folder, CARD, self.config["files"][CARD])
        return data.decode("utf-8", errors="replace")


def default_models_folder() -> Path:
    """Where the extension's own models lie."""
    return resources("Models")


def bundle_folders(search: Sequence[str | Path] = ()) -> list[Path]:
    """Folders that hold a ``model.json``, by name; the content is not looked at.

    Args:
        search: folders of models to look in before the extension's own. Of two models of one name
            the first found counts.
    """
    found: dict[str, Path] = {}
    for models in (*map(Path, search), default_models_folder()):
        if models.is_dir():
            for folder in models.iterdir():
                if not folder.name.startswith(".") and is_bundle(folder):
                    found.setdefault(folder.name, folder)
    return [found[name] for name in sorted(found)]


def find_bundle(model: str | Path, search: Sequence[str | Path] = ()) -> Path:
    """The folder of a model.

    Args:
        model: a name, looked up in ``search`` and in the extension's own models, or a folder.
        search: further folders of models, looked in first.

    Raises:
        BundleError: naming the models that there are, if there is no such model.
    """
    folders = bundle_folders(search)
    for folder in folders:
        if folder.name == str(model):
            return folder
    path = Path(os.path.expanduser(model))
    if os.path.isdir(path):
        if is_bundle(path):
            return path
        raise BundleError(f"{model}: is not a model, it has no {CONFIG}; give a model's folder")
    names = ", ".join(folder.name for folder in folders) or "none"
    raise BundleError(f"there is no model {model}; give a model's folder or one of: {names}")


@dataclass(frozen=True)
class Summary:
    """What a panel shows of a model before it is chosen; nothing of it is verified.

    Attributes:
        kind, modality: as of :class:`Bundle`; empty if it does not say.
        thresholds: healthy percentile at which masks are cut, by method or mode of ``lsr``; none of
            a model whose calibration cannot be read.
    """

    kind: str
    modality: str
    thresholds: Mapping[str, float]


def summary(folder: Path) -> Summary:
    """Look at a model's settings, without its weights; kept as long as its files are as they are.

    Raises:
        BundleError: they cannot be read.
    """
    return _summary(folder, *(_changed(folder / file) for file in (CONFIG, CALIBRATION)))


@lru_cache(maxsize=256)
def _summary(folder: Path, _config: int, calibration: int) -> Summary:
    config = _parse(folder, CONFIG, _read_file(folder, CONFIG, None))
    thresholds: dict[str, float] = {}
    # A calibration that is damaged is told of when the model is run.
    with contextlib.suppress(BundleError, AttributeError, KeyError, TypeError, ValueError):
        if calibration:
            modes = _parse(folder, CALIBRATION, _read_file(folder, CALIBRATION, None))["modes"]
            thresholds = {name: float(of["threshold_percentile"]) for name, of in modes.items()}
    return Summary(str(config.get("kind", "")), str(config.get("modality", "")), thresholds)


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a model; its content is not looked at."""
    return (folder / CONFIG).is_file()


def read_bundle(folder: str | Path) -> Bundle:
    """Read a model's settings and verify all of its files.

    Raises:
        BundleError: naming the model and the file, if the format version is another, a setting is
            missing, or a listed file is missing, changed or not what its ending says.
    """
    folder = Path(folder)
    config = _parse(folder, CONFIG, _read_file(folder, CONFIG, None))
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"model {folder.name}: format version is {version!r} and this extension reads "
            f"{FORMAT_VERSION}; install the extension's version that the model was made for"
        )
    wrong = fault(config)
    if wrong is not None:
        raise BundleError(f"model {folder.name}: {CONFIG}: {wrong}; {_REPAIR}")
    kind = str(config.get("kind"))
    needed = KEYS + KIND_KEYS.get(kind, ())
    missing = [key for key in needed if key not in config]
    if missing:
        raise BundleError(
            f"model {folder.name}: {CONFIG} does not state {', '.join(missing)}; {_REPAIR}"
        )
    files = config["files"]
    if not isinstance(files, dict) or not all(map(_is_listable, files)):
        raise BundleError(
            f"model {folder.name}: {CONFIG} lists files other than {', '.join(ENDINGS)} beside "
            f"it; {_REPAIR}"
        )
    for file in KIND_FILES.get(kind, ()):
        if file not in files:
            raise BundleError(f"model {folder.name}: {CONFIG} does not list {file}; {_REPAIR}")
    calibration: dict[str, Any] = {}
    for file, digest in files.items():
        data = _read_file(folder, file, digest)
        if file.endswith(".safetensors"):
            _check_safetensors(folder, file, data)
        elif file == CALIBRATION:
            calibration = _parse(folder, file, data, finite=True)
            _check_modes(folder, calibration)
    return Bundle(folder, str(config["name"]), config, calibration)


def _is_listable(file: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*", file) is not None and file.endswith(ENDINGS)


def _read_file(folder: Path, file: str, digest: str | None) -> bytes:
    path = folder / file
    try:
        if path.exists() and not path.is_file():
            raise BundleError(f"model {folder.name}: {file} is not a file; {_REPAIR}")
        if path.stat().st_size > _LARGEST_FILE:
            raise BundleError(f"model {folder.name}: {file} is too large for a model; {_REPAIR}")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"model {folder.name}: {file} is missing; {_REPAIR}") from error
    except OSError as error:
        raise BundleError(
            f"model {folder.name}: {file} cannot be read ({error.strerror}); check its permissions"
        ) from error
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise BundleError(
            f"model {folder.name}: {file} is not as it was made (its SHA-256 differs); {_REPAIR}"
        )
    return data


def _parse(folder: Path, file: str, data: bytes, finite: bool = False) -> dict[str, Any]:
    try:
        return parse(data, finite)
    except ValueError as error:
        raise BundleError(f"model {folder.name}: {file} {error}; {_REPAIR}") from error


def _check_modes(folder: Path, calibration: Mapping[str, Any]) -> None:
    modes = calibration.get("modes", {})
    if not isinstance(modes, dict) or not all(isinstance(mode, dict) for mode in modes.values()):
        raise BundleError(f"model {folder.name}: {CALIBRATION} has no modes; {_REPAIR}")


def _check_safetensors(folder: Path, file: str, data: bytes) -> None:
    """Its header must be one, and account for every byte of the file."""
    from safetensors import SafetensorError, deserialize

    try:
        deserialize(data)
    except SafetensorError as error:
        raise BundleError(
            f"model {folder.name}: {file} is not a safetensors file; {_REPAIR}"
        ) from error


def portable(model: str | Path) -> str:
    """A model as other processes find it: the name of a shipped one, the folder of another.

    Raises:
        BundleError: there is none.
    """
    folder = find_bundle(model).resolve()
    shipped = folder.parent == default_models_folder().resolve()
    return folder.name if shipped else str(folder)


def digest_of_models(bundle: Bundle) -> str:
    """A digest of a model, and of the one that finds the brain for it.

    A model's settings hold the hash of each of its files.
    """
    from .schema import BRAIN_BUNDLE

    folders = [bundle.folder]
    with contextlib.suppress(BundleError):  # without one, brains are given
        folders.append(find_bundle(bundle.config.get("brain_model", BRAIN_BUNDLE)))
    return " ".join(digest_of_file(folder / "model.json") for folder in folders)
