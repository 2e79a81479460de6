"""The models that can be chosen: the extension's own, and those that the user added."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
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
    from LatentSpaceRestorationLib.bundle.bundle import summary
    from LatentSpaceRestorationLib.errors import BundleError

    try:
        return summary(folderOf(model)).thresholds.get(mode)
    except BundleError:
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
    from LatentSpaceRestorationLib.bundle.bundle import bundle_folders, summary
    from LatentSpaceRestorationLib.errors import BundleError

    found = {DEFAULT_MODEL: ""}
    for folder in bundle_folders(searchFolders()):
        try:
            about = summary(folder)
        except BundleError:
            continue
        if about.kind == "anomaly" and not found.get(folder.name):
            found[folder.name] = about.modality
    return found


def isAdded(model: str) -> bool:
    """Whether a model was added by the user, and so can be removed."""
    from LatentSpaceRestorationLib.bundle.bundle import is_bundle

    return _isName(model) and is_bundle(userModelsFolder() / model)


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
    from LatentSpaceRestorationLib.bundle.write import copy_bundle

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
    if "default" not in bundle.modes:
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
    copy_bundle(bundle, replaced)
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
        modality=bundle.modality,
        spacing=f"{bundle.spacing_mm:g}",
        size=f"{bundle.size / 1e6:.1f}",
        count=len(bundle.calibrated_on),
    )
    if isAdded(model):
        figures = _("{figures}; added by you").format(figures=figures)
    return figures, card


def _isName(model: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*", model) is not None
