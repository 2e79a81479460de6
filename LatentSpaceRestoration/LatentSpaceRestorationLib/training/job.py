"""A model of one's own, begun from a form: a folder of healthy scans, a name, a place to work.

Imports no torch: the panel writes the settings, and other processes train and calibrate by them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, OutputError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def check_name(name: str) -> None:
    """Refuse what cannot be a model's name.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"the name {name!r} cannot be a folder's; use letters, digits, - and _")


@dataclass(frozen=True)
class TrainingJob:
    """What is asked for.

    Attributes:
        scans: folder or table of healthy scans; see ``docs/training.md`` for what it may hold.
        name: of the model; letters, digits, ``-`` and ``_``.
        folder: gets the settings, checkpoints and the model.
        population: who is in the scans, in words, for the model card.
        device: auto, cpu, cuda or mps.
        adapts: name or folder of a model that the scans calibrate in a copy, without training;
            empty trains a model.
    """

    scans: Path
    name: str
    folder: Path
    population: str = ""
    device: str = "auto"
    adapts: str = ""

    @property
    def settings(self) -> Path:
        """The file of settings."""
        return self.folder / f"{self.name}.toml"

    @property
    def work(self) -> Path:
        """Where ``lsr train`` keeps its checkpoints."""
        return self.folder / self.name

    @property
    def model(self) -> Path:
        """Where the model will be."""
        return self.folder / self.name if self.adapts else self.work / self.name

    @property
    def is_begun(self) -> bool:
        """Whether a training of this name lies in the folder, to be gone on with."""
        return (self.work / "vqvae.pt").is_file()

    def commands(self) -> tuple[tuple[str, ...], ...]:
        """Arguments of the ``lsr`` commands that make the model, one after the other."""
        if self.adapts:
            place = ("--name", self.name, "--output", str(self.folder))
            scans = str(self.scans.absolute())
            return (("calibrate", self.adapts, scans, *place, "--device", self.device),)
        train = ("train", "prior", str(self.settings), "--work", str(self.work))
        return (
            (*train, "--device", self.device, "--no-tensorboard"),
            # The panel uses no baseline.
            ("calibrate", str(self.model), "--methods", "lsr", "--device", self.device),
        )

    def write_settings(self) -> None:
        """Write the settings, unless they are there: a training goes on by those it began with.

        What is adapted needs none: it is checked alone.

        Raises:
            ConfigError: in one line: there are no such scans, or the name cannot be one.
            OutputError: the folder cannot be written.
        """
        check_name(self.name)
        if not self.scans.exists():
            raise ConfigError(f"{self.scans}: is not there; choose the folder of healthy scans")
        text = self._as_toml()
        try:
            if self.adapts:
                self.folder.mkdir(parents=True, exist_ok=True)
                return
            if self.settings.is_file():
                self._refuse_others(self.settings.read_text(encoding="utf-8"), text)
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            self.settings.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot be written ({error.strerror}); choose another folder"
            ) from error

    def _refuse_others(self, kept: str, wanted: str) -> None:
        def source(text: str) -> list[str]:
            return [line for line in text.splitlines() if line.startswith("source")]

        if source(kept) != source(wanted):
            raise ConfigError(
                f"{self.settings}: is of other scans; choose another name or another folder"
            )

    def _as_toml(self) -> str:
        # A string of JSON is one of TOML.
        def quoted(text: str) -> str:
            return json.dumps(text, ensure_ascii=False)

        lines = ["[model]", f"name = {quoted(self.name)}"]
        if self.population:
            lines.append(f"population = {quoted(self.population)}")
        return "\n".join([*lines, "", "[data]", f"source = {quoted(str(self.scans.absolute()))}\n"])
