"""Checkpoints: written whole or not at all, and gone on from by the same training only."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigError
from ...io.files import write_whole


def write_checkpoint(file: Path, state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Write the state of a training.

    Args:
        file: replaced if it is there.
        state: tensors, numbers, and dictionaries and lists of them.
        identity: what the training is, as JSON can hold it.

    Raises:
        OutputError: as of :func:`write_whole`.
    """
    # Into memory first: what torch raises when a disk is full tells nobody that it is.
    buffer = io.BytesIO()
    torch.save({**state, "identity": json.dumps(identity, sort_keys=True)}, buffer)
    write_whole(file, buffer.getbuffer())


def read_checkpoint(file: Path, device: str, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state of a training; None if there is no checkpoint.

    Raises:
        ConfigError: the checkpoint is damaged, or of another training.
    """
    if not file.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        made_with = json.loads(state.pop("identity"))
    except Exception as error:  # torch, pickle and zip each have their own
        raise ConfigError(
            f"{file}: is not a checkpoint of this version; remove it, or choose another --work "
            "folder"
        ) from error
    changed = _difference(made_with, json.loads(json.dumps(identity)))
    if changed:
        raise ConfigError(
            f"{file}: was made with {changed}; choose another --work folder, or change it back"
        )
    return state


def _difference(before: Any, now: Any, name: str = "") -> str:
    """The first setting that differs, in words; empty if none does."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            inner = f"{name}.{key}" if name else key
            found = _difference(before.get(key), now.get(key), inner)
            if found:
                return found
        return ""
    return "" if before == now else f"{name} = {before} and now it is {now}"
