"""``lsr models``: what is installed, a card, and whether every file is as it was made."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from ..errors import BundleError
from .arguments import UNUSABLE_ARGUMENTS
from .terminal import complain

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle


def add_models(models: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    """Add the actions of ``lsr models``, which take the shared arguments as well."""
    models.set_defaults(command=_list_models)
    actions = models.add_subparsers(metavar="ACTION")
    listing = actions.add_parser("list", parents=[shared], help="what is installed (the default)")
    show = actions.add_parser("show", parents=[shared], help="a model's card")
    show.add_argument("model", metavar="NAME_OR_FOLDER")
    verify = actions.add_parser("verify", parents=[shared], help="check every file's hash")
    verify.add_argument("models", nargs="*", metavar="NAME_OR_FOLDER", help="default: all")
    for action, command in ((listing, _list_models), (show, _show_model), (verify, _verify)):
        action.set_defaults(command=command)


def _list_models(options: argparse.Namespace) -> int:
    from ..bundle.bundle import bundle_folders, default_models_folder, read_bundle

    folders = bundle_folders()
    if not folders:
        print(f"no models in {default_models_folder()}")
    for folder in folders:
        try:
            print(_model_line(read_bundle(folder)))
        except BundleError as error:
            print(f"{folder.name:<20} damaged: {error}")
    return 0


def _model_line(bundle: Bundle) -> str:
    size = f"{bundle.size / 1e6:.1f} MB"
    return f"{bundle.name:<20} {bundle.kind:<18} {bundle.modality:<6} {size:>9}  {bundle.folder}"


def _show_model(options: argparse.Namespace) -> int:
    from ..bundle.bundle import find_bundle, read_bundle

    bundle = read_bundle(find_bundle(options.model))
    print(_model_line(bundle))
    for key in ("licence", "grid", "spacing_mm", "orientation", "training", "metrics"):
        if key in bundle.config:
            print(f"{key}: {json.dumps(bundle.config[key], ensure_ascii=False)}")
    print(f"\n{bundle.card()}".rstrip())
    return 0


def _verify(options: argparse.Namespace) -> int:
    from ..bundle.bundle import bundle_folders, find_bundle, read_bundle

    folders = [find_bundle(model) for model in options.models] or bundle_folders()
    if not folders:
        raise BundleError("there are no models to verify; give a model's folder")
    status = 0
    for folder in folders:
        try:
            bundle = read_bundle(folder)
        except BundleError as error:
            complain(str(error), options.debug)
            status = UNUSABLE_ARGUMENTS
        else:
            print(f"{bundle.name}: {len(bundle.config['files'])} files are as they were made")
    return status
