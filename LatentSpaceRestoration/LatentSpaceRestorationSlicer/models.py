"""The models that can be chosen, by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

DEFAULT_MODEL = "brain-t1"


def thresholdPercentile(model: str, mode: str) -> float | None:
    """The healthy percentile at which a model cuts its masks; None if its files do not say."""
    from LatentSpaceRestorationLib.bundle import find_bundle
    from LatentSpaceRestorationLib.errors import BundleError

    try:
        text = (find_bundle(model) / "calibration.json").read_text(encoding="utf-8")
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
        from LatentSpaceRestorationLib.bundle import bundle_folders

        names = [DEFAULT_MODEL]
        for folder in bundle_folders():
            try:
                kind = json.loads((folder / "model.json").read_text(encoding="utf-8")).get("kind")
            except (OSError, ValueError, AttributeError):
                continue
            if kind == "anomaly" and folder.name not in names:
                names.append(folder.name)
        return names

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._names()[index]

    def __len__(self) -> int:
        return len(self._names())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __repr__(self) -> str:
        return repr(self._names())
