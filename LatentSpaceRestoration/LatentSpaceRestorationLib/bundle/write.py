"""Writing a model, all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutputError
from .bundle import Bundle, read_bundle
from .card import model_card
from .schema import CALIBRATION, CARD, CONFIG, FORMAT_VERSION, PLACE

if TYPE_CHECKING:
    from torch import Tensor


def write_bundle(
    folder: str | Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    calibration: Mapping[str, Any] | None = None,
    card: str | None = None,
) -> Bundle:
    """Write a model, all or nothing: into a hidden folder beside its place, verified, then renamed.

    Args:
        folder: the model's folder, replaced if it is there; its name is the model's.
        config: settings as in ``model.json``; ``format_version`` and ``files`` are filled in.
        tensors: weights by file name (``vqvae.safetensors``) and key.
        calibration: for ``calibration.json``.
        card: text of ``MODEL_CARD.md``.

    Raises:
        BundleError: if the settings are not those of a model.
        OutputError: if the folder cannot be written, or is there and is not a model.
        ValueError: if ``config["name"]`` is not the folder's name.
    """
    from safetensors.torch import save

    folder = Path(folder)
    if config.get("name") != folder.name:
        raise ValueError(f"the name {config.get('name')!r} is not the folder's, {folder.name!r}")
    if folder.exists() and not (folder / CONFIG).is_file():
        raise OutputError(f"{folder}: is there and is not a model; choose another folder")
    contents = {
        file: save({key: value.detach().cpu().contiguous().clone() for key, value in group.items()})
        for file, group in tensors.items()
    }
    if calibration is not None:
        contents[CALIBRATION] = _to_json(calibration)
    if card is not None:
        contents[CARD] = card.encode("utf-8")
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in sorted(contents.items())}
    contents[CONFIG] = _to_json({"format_version": FORMAT_VERSION, **config, "files": digests})
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".lsr-", dir=folder.parent) as parts:
            # The names of the new and the old model: errors about the new one name it.
            new, old = Path(parts) / folder.name, Path(parts) / "old"
            new.mkdir()
            for file, data in contents.items():
                (new / file).write_bytes(data)
            read_bundle(new)
            if folder.exists():
                os.replace(folder, old)
            try:
                os.replace(new, folder)
            except BaseException:
                if old.exists():
                    os.replace(old, folder)
                raise
    except OSError as error:
        raise OutputError(
            f"{folder}: the model cannot be written ({error.strerror or error}); "
            "choose a folder that can be written and has room"
        ) from error
    return read_bundle(folder)


def _to_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def copy_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """Copy a model's listed files, and no others; what was copied is verified.

    Args:
        bundle: the model.
        folder: gets the copy, and is replaced if it is there; its name is the model's.

    Raises:
        BundleError: the model changed meanwhile.
        OSError: it cannot be copied; what was there is left.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".lsr-", dir=folder.parent) as parts:
        copy = Path(parts) / folder.name
        copy.mkdir()
        for file in (CONFIG, *bundle.config["files"]):
            shutil.copyfile(bundle.folder / file, copy / file)
        read_bundle(copy)
        if folder.exists():
            os.replace(folder, Path(parts) / "before")
        os.replace(copy, folder)
    return read_bundle(folder)


def add_calibration(
    folder: Path, calibration: Mapping[str, Any], places: Mapping[str, Tensor]
) -> Bundle:
    """Write what healthy scans give into a bundle; its weights stay as they are."""
    return rewrite_bundle(read_bundle(folder), calibration=calibration, places=places)


def add_metrics(folder: Path, metrics: dict[str, Any]) -> Bundle:
    """Write measured figures into a bundle's settings and card; weights stay as they are."""
    return rewrite_bundle(read_bundle(folder), metrics=metrics)


def rewrite_bundle(
    bundle: Bundle,
    folder: Path | None = None,
    *,
    metrics: Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
    places: Mapping[str, Tensor] | None = None,
) -> Bundle:
    config = {key: value for key, value in bundle.config.items() if key != "files"}
    if metrics is not None:
        config["metrics"] = dict(metrics)
    if folder is not None:
        config |= {"name": folder.name, "adapted_from": bundle.name}
    files = [file for file in bundle.config["files"] if file.endswith(".safetensors")]
    tensors = {file: bundle.tensors(file) for file in files}
    if places:
        tensors[PLACE] = dict(places)
    healthy = calibration if calibration is not None else bundle.calibration
    card = model_card(config, healthy)
    return write_bundle(folder or bundle.folder, config, tensors, healthy or None, card)
