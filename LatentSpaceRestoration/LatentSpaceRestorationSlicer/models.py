"""The models that can be chosen: the extension's own, and those that the user added."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import slicer
from slicer.i18n import tr as _

DEFAULT_MODEL = "brain-t1"
#: Stands for any kind of scan where models are chosen by it.
ANY_MODALITY = "any"


def userModelsFolder() -> Path:
    """Where models lie that the user added: beside Slicer's settings, so that updates keep them."""
    return Path(slicer.app.slicerUserSettingsFilePath).parent / "LatentSpaceRestoration" / "Models"


def searchFolders() -> tuple[Path, ...]:
    """Folders of models beside the extension's own."""
    return (userModelsFolder(),)


def folderOf(model: str) -> Path:
    """Where an installed model lies.

    Raises:
        LatentSpaceRestorationLib.errors.BundleError: there is none of that name.
    """
    from LatentSpaceRestorationLib.bundle.bundle import find_bundle

    return find_bundle(model, searchFolders())


def thresholdPercentile(model: str, mode: str) -> float | None:
    """The healthy percentile at which a model cuts its masks; None if its files do not say."""
    from LatentSpaceRestorationLib.errors import BundleError

    try:
        text = (folderOf(model) / "calibration.json").read_text(encoding="utf-8")
        return float(json.loads(text)["modes"][mode]["threshold_percentile"])
    except (BundleError, OSError, ValueError, KeyError, TypeError):
        return None


class ModelNames(Sequence[str]):
    """Names of the installed models, looked up each time, the default one first.

    The parameter ``model`` takes its choices from here. Files are not read when the module is
    imported, and a model that was added is there when the panel is next shown. The default model is
    always among them: if its files are damaged or missing, running it says so.
    """

    def _names(self) -> list[str]:
        return list(modalities())

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._names()[index]

    def __len__(self) -> int:
        return len(self._names())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __repr__(self) -> str:
        return repr(self._names())


class Modalities(ModelNames):
    """The kinds of scan that there are models for, after one that stands for any."""

    def _names(self) -> list[str]:
        return [ANY_MODALITY, *sorted(set(modalities().values()) - {""})]


def modalities() -> dict[str, str]:
    """The kind of scan of each installed model, the default one first; empty if it does not say."""
    from LatentSpaceRestorationLib.bundle.bundle import bundle_folders

    found = {DEFAULT_MODEL: ""}
    for folder in bundle_folders(searchFolders()):
        settings = folder / "model.json"
        try:
            kind, modality = _kindAndModality(settings, settings.stat().st_mtime_ns)
        except (OSError, ValueError, AttributeError):
            continue
        if kind == "anomaly" and not found.get(folder.name):
            found[folder.name] = modality
    return found


@lru_cache(maxsize=256)
def _kindAndModality(settings: Path, _changed: int) -> tuple[str, str]:
    """Of a model, read once as long as its file stays as it is: the panel asks at every change."""
    config = json.loads(settings.read_text(encoding="utf-8"))
    return str(config.get("kind")), str(config.get("modality", ""))


def isAdded(model: str) -> bool:
    """Whether a model was added by the user, and so can be removed."""
    return _isName(model) and (userModelsFolder() / model / "model.json").is_file()


def addModel(folder: str | Path, replace: bool = False) -> str:
    """Copy a model into the user's folder, after it was checked.

    Args:
        folder: with ``model.json`` and the files that it lists; others are not copied.
        replace: take the place of a model of its name that was added before.

    Returns:
        the model's name.

    Raises:
        ValueError: it is not a calibrated model that finds anomalies, or there is one of its name.
        LatentSpaceRestorationLib.errors.BundleError: it is damaged, or no model at all.
        OSError: it cannot be copied.
    """
    from LatentSpaceRestorationLib.bundle.bundle import find_bundle, read_bundle

    bundle = read_bundle(find_bundle(Path(folder).expanduser()))
    name = bundle.name
    if bundle.kind != "anomaly":
        raise ValueError(
            _("Model {name} is for {kind}, not for finding anomalies; choose another.").format(
                name=name, kind=bundle.kind
            )
        )
    if not _isName(name):
        raise ValueError(
            _("The name {name} cannot be a folder's; name the model in letters and digits.").format(
                name=repr(name)
            )
        )
    if "default" not in bundle.calibration.get("modes", {}):
        raise ValueError(
            _("Model {name} was not calibrated; run lsr calibrate on it first.").format(name=name)
        )
    replaced = userModelsFolder() / name
    if not (replace and isAdded(name)) and (name in ModelNames() or replaced.exists()):
        raise ValueError(
            _("There is a model {name} already; remove it first, or rename this one.").format(
                name=name
            )
        )
    userModelsFolder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=userModelsFolder()) as parts:
        copy = Path(parts) / name
        copy.mkdir()
        for file in ("model.json", *bundle.config["files"]):
            shutil.copyfile(bundle.folder / file, copy / file)
        read_bundle(copy)  # what was copied is what was checked
        if replaced.exists():
            os.replace(replaced, Path(parts) / "before")
        os.replace(copy, replaced)
    return name


def removeModel(model: str) -> None:
    """Delete a model that the user added.

    Raises:
        ValueError: it is one of the extension's own, or none at all.
        OSError: it cannot be deleted.
    """
    if not isAdded(model):
        raise ValueError(_("Model {name} was not added here; it stays.").format(name=model))
    shutil.rmtree(userModelsFolder() / model)


def describe(model: str) -> tuple[str, str]:
    """A model's figures in one line, and its card in Markdown; what is wrong, if it is damaged."""
    from LatentSpaceRestorationLib.bundle.bundle import read_bundle
    from LatentSpaceRestorationLib.errors import BundleError

    try:
        bundle = read_bundle(folderOf(model))
        card = bundle.card()
    except (BundleError, ImportError) as error:
        return str(error), ""
    figures = _(
        "{modality}, {spacing} mm, {size} MB, calibrated with {count} healthy scans"
    ).format(
        modality=bundle.config["modality"],
        spacing=f"{float(bundle.config['spacing_mm']):g}",
        size=f"{bundle.size / 1e6:.1f}",
        count=_healthyScans(bundle.calibration),
    )
    if isAdded(model):
        figures = _("{figures}; added by you").format(figures=figures)
    return figures, card


def _healthyScans(calibration: dict) -> int:
    try:
        return len(calibration["modes"]["default"]["levels"][0]["sample_scores"])
    except (KeyError, IndexError, TypeError):
        return 0


def _isName(model: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*", model) is not None
