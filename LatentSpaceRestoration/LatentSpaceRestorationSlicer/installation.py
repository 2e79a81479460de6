"""Which Python packages are missing, and installing them when a button asks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import sysconfig
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

_REQUESTER = "Latent Space Restoration"
_TORCH_VERSION = ">=2.2"
_OLD_NUMPY = "numpy<2"


class MissingPackagesError(RuntimeError):
    """Packages are needed that are not installed; the text says what to do."""


class DeclinedError(MissingPackagesError):
    """The user was asked, and does not want them installed: that is no fault."""


def packagesFolder() -> str:
    """Where packages are installed: in Slicer, a folder that only Slicer uses."""
    return sysconfig.get_paths()["purelib"]


def offlineInstructions() -> str:
    """How to install without internet, for this Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return _(
        "Without internet: on a computer of the same kind that has it, run\n"
        "pip download torch scipy safetensors --python-version {version} --only-binary=:all:"
        " -d FOLDER\n"
        "bring FOLDER here, and type in Slicer's Python console\n"
        'slicer.util.pip_install("--no-index --find-links FOLDER torch scipy safetensors")'
    ).format(version=version)


def torchIsInstalled() -> bool:
    """Whether torch can be found; it is not imported."""
    try:
        return importlib.util.find_spec("torch") is not None
    except (ImportError, ValueError):
        return False


def numpyIsTooNew() -> bool:
    """Whether torch is older than numpy 2, as the last for Macs with Intel is, and runs with it.

    What counts is the numpy that this process has: another that was installed meanwhile is there
    after a restart.
    """
    from packaging.version import Version

    try:
        torch = Version(importlib.metadata.version("torch"))
    except importlib.metadata.PackageNotFoundError:
        return False
    return torch < Version("2.3") and Version(np.__version__) >= Version("2")


def hasOwnInstaller() -> bool:
    """Whether this Slicer has ``slicer.packaging``, which asks, installs and shows progress."""
    return importlib.util.find_spec("slicer.packaging") is not None


def missingPackages(requirements: Path) -> list[str]:
    """The lines of a requirements file that are not fulfilled.

    Args:
        requirements: one requirement a line; ``#`` starts a comment.
    """
    from packaging.requirements import Requirement

    missing = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        wanted = Requirement(text)
        try:
            installed = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(text)
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            missing.append(text)
    return missing


class Packages:
    """The packages that something needs: torch, and what files of requirements name."""

    def __init__(self, *requirements: Path) -> None:
        self._requirements = requirements

    def missing(self) -> list[str]:
        """What is not installed."""
        torch = [] if torchIsInstalled() else ["torch"]
        numpy = [_OLD_NUMPY] if numpyIsTooNew() else []
        return [*torch, *numpy, *self._missingBesideTorch()]

    def check(self) -> None:
        """Raise ``MissingPackagesError`` unless everything is there. Opens no dialog."""
        missing = self.missing()
        if missing:
            raise MissingPackagesError(
                _(
                    "Python packages are missing: {packages}. Open the module Latent Space"
                    " Restoration and click Detect anomalies to install them."
                ).format(packages=", ".join(missing))
            )

    def ensure(self) -> None:
        """Install what is missing, after asking. May open dialogs.

        A torch that is there is taken as it is. In testing mode nothing is ever installed.

        Raises:
            DeclinedError: the user said no.
            MissingPackagesError: the PyTorch extension is missing, Slicer is in testing mode, or
                what was installed does not do.
        """
        if not torchIsInstalled():
            _installTorch()
        missing = self._missingBesideTorch()
        if missing:
            _installPackages(missing)
        if numpyIsTooNew():
            _installOldNumpy()
        self.check()

    def _missingBesideTorch(self) -> list[str]:
        return [line for file in self._requirements for line in missingPackages(file)]


def _installTorch() -> None:
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ImportError as error:
        raise MissingPackagesError(
            _(
                "PyTorch is not installed. Install the extension PyTorch in Slicer's Extensions"
                " Manager, restart Slicer, and click Detect anomalies again."
            )
        ) from error
    _refuseInTesting("torch")
    question = _(
        "PyTorch runs the networks and is not installed yet. The extension PyTorch will download"
        " the build for this computer: about 0.2 GB, or up to 3 GB for an NVIDIA graphics card. It"
        " takes 1 to 7 GB in\n{folder}\nand nothing of your scans is sent. Install PyTorch?"
    ).format(folder=packagesFolder())
    if not slicer.util.confirmOkCancelDisplay(question):
        raise DeclinedError(_("PyTorch was not installed, so that nothing was run."))
    torch = PyTorchUtilsLogic().installTorch(
        askConfirmation=False, torchVersionRequirement=_TORCH_VERSION
    )
    if torch is None:
        raise MissingPackagesError(_("PyTorch was not installed, so that nothing was run."))


def _installOldNumpy() -> None:
    _refuseInTesting(_OLD_NUMPY)
    question = _(
        "The PyTorch that there is for this computer works with numpy 1, and Slicer has numpy"
        " {version}. Replace it by the last numpy 1? Slicer has to be restarted then."
    ).format(version=np.__version__)
    if not slicer.util.confirmOkCancelDisplay(question):
        raise DeclinedError(_("numpy was left as it is, so that nothing was run."))
    slicer.util.pip_install(_OLD_NUMPY)
    restart = _("numpy 1 is installed. Restart Slicer now? What is not saved would be lost.")
    if slicer.util.confirmOkCancelDisplay(restart):
        slicer.util.restart()
    raise DeclinedError(_("Restart Slicer, then click Detect anomalies again."))


def _installPackages(missing: list[str]) -> None:
    _refuseInTesting(", ".join(missing))
    question = _(
        "These Python packages will be downloaded, about 40 MB: {packages}. They go into\n"
        "{folder}\nand nothing of your scans is sent. Install them?"
    ).format(packages=", ".join(missing), folder=packagesFolder())
    if not slicer.util.confirmOkCancelDisplay(question):
        raise DeclinedError(_("Packages were not installed, so that nothing was run."))
    if hasOwnInstaller():
        from slicer.packaging import pip_ensure

        # It shows its progress. The question was asked above, with the size and the place.
        pip_ensure(missing, requester=_REQUESTER, prompt_install=False)
    else:
        slicer.util.pip_install(missing)


def _refuseInTesting(packages: str) -> None:
    if slicer.app.testingEnabled():
        raise MissingPackagesError(
            _("Slicer is in testing mode, so that {packages} is not installed.").format(
                packages=packages
            )
        )
