"""Model bundles: written whole, read only if every byte is as it was made."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from LatentSpaceRestorationLib.bundle.bundle import (
    Bundle,
    bundle_folders,
    default_models_folder,
    find_bundle,
    read_bundle,
)
from LatentSpaceRestorationLib.bundle.schema import FORMAT_VERSION
from LatentSpaceRestorationLib.bundle.write import write_bundle
from LatentSpaceRestorationLib.errors import BundleError, OutputError


def settings_of(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "anomaly",
        "modality": "T1",
        "grid": [8, 8],
        "spacing_mm": 2.0,
        "orientation": "RAS",
        "intensity": {},
        "vqvae": {},
        "prior": {},
        "licence": "CC0",
        **changes,
    }


def make(folder: Path, **changes: Any) -> Bundle:
    weights = {
        "vqvae.safetensors": {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(2).half()},
        "prior.safetensors": {"c": torch.nn.Parameter(torch.zeros(3))},
    }
    settings = settings_of(folder.name, **changes)
    return write_bundle(folder, settings, weights, {"scans": 2}, "# Card\n")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make(tmp_path / "tiny")


def test_what_is_written_is_read(bundle: Bundle) -> None:
    again = read_bundle(bundle.folder)
    assert again == bundle
    assert again.kind == "anomaly"
    assert again.config["format_version"] == FORMAT_VERSION
    assert again.calibration == {"scans": 2}
    assert again.card() == "# Card\n"
    weights = again.tensors("vqvae.safetensors")
    torch.testing.assert_close(weights["a"], torch.arange(6.0).reshape(2, 3).T)
    assert weights["b"].dtype == torch.float16
    assert not again.tensors("prior.safetensors")["c"].requires_grad
    assert again.size == sum(
        path.stat().st_size for path in bundle.folder.iterdir() if path.name != "model.json"
    )


def test_a_model_without_calibration_and_card(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "notes", {"name": "notes", "kind": "of another kind", "licence": "CC0"}, {}
    )
    assert bundle.calibration == {}
    assert bundle.card() == ""


def test_any_changed_byte_is_refused(bundle: Bundle) -> None:
    for file in bundle.config["files"]:
        path = bundle.folder / file
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            changed = bytearray(whole)
            changed[place] ^= 1
            path.write_bytes(changed)
            refused(bundle.folder, file)
        path.write_bytes(whole[:-1])
        refused(bundle.folder, file)
        path.unlink()
        refused(bundle.folder, f"{file} is missing")
        path.write_bytes(whole)
    read_bundle(bundle.folder)


def refused(folder: Path, said: str) -> None:
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    message = str(caught.value)
    assert said in message
    assert folder.name in message
    assert "\n" not in message


def test_weights_that_change_after_reading_are_refused(bundle: Bundle) -> None:
    path = bundle.folder / "prior.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"prior\.safetensors is not as it was made"):
        bundle.tensors("prior.safetensors")
    with pytest.raises(BundleError, match="no weights"):
        bundle.tensors("other.safetensors")
    with pytest.raises(BundleError, match="no weights"):
        bundle.tensors("model.json")


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    config.update(changes)
    (folder / "model.json").write_text(json.dumps({k: v for k, v in config.items() if v != "-"}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": FORMAT_VERSION + 1}, "format version is 2"),
        ({"format_version": "-"}, "format version is None"),
        ({"licence": "-"}, "does not state licence"),
        ({"grid": "-", "prior": "-"}, "does not state grid, prior"),
        ({"files": []}, "lists files other than"),
        ({"files": {"../x.json": ""}}, "lists files other than"),
        ({"files": {"x.pt": ""}}, "lists files other than"),
        ({"files": {}}, "does not list vqvae.safetensors"),
        ({"grid": [8, 10**9]}, "grid is not two numbers of at most 512"),
        ({"grid": {"rows": 8}}, "grid is not two numbers"),
        ({"spacing_mm": 1e9}, "spacing_mm is not between"),
        ({"spacing_mm": "fine"}, "spacing_mm is no number"),
        ({"name": "a\nb"}, "name is no name"),
        ({"vqvae": {"channels": [16, 10**6]}}, "vqvae has sizes that no network of use has"),
        ({"prior": {"channels": 128, "blocks": 10**9}}, "prior has sizes"),
        ({"prior": {"channels": [], "codes": 0}}, "prior has sizes"),
        ({"prior": [1]}, "prior is no group of settings"),
        ({"files": {"vqvae.safetensors": 1, "prior.safetensors": 2}}, "vqvae.safetensors"),
    ],
)
def test_settings_refused(bundle: Bundle, changes: dict[str, Any], said: str) -> None:
    edit(bundle.folder, **changes)
    refused(bundle.folder, said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON (too deep)"),
    ],
)
def test_settings_that_are_no_settings(bundle: Bundle, content: bytes, said: str) -> None:
    (bundle.folder / "model.json").write_bytes(content)
    refused(bundle.folder, said)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    settings = settings_of("odd")
    weights = {"a": torch.tensor([1.0, float("nan")])}
    files = {"vqvae.safetensors": weights, "prior.safetensors": {}}
    bundle = write_bundle(tmp_path / "odd", settings, files)
    with pytest.raises(BundleError, match="values of 'a' that are not finite"):
        bundle.tensors("vqvae.safetensors")
    for value in (float("inf"), float("nan")):
        with pytest.raises(BundleError, match=r"calibration\.json has (Infinity|NaN)"):
            write_bundle(tmp_path / "odd", settings, files, {"modes": {"default": {"x": value}}})
    with pytest.raises(BundleError, match="has no modes"):
        write_bundle(tmp_path / "odd", settings, files, {"modes": [1]})


def test_what_would_fill_the_memory_or_never_end_is_not_read(bundle: Bundle) -> None:
    path = bundle.folder / "prior.safetensors"
    with path.open("r+b") as stream:
        stream.truncate(2**30 + 1)  # takes no room on most disks
    refused(bundle.folder, "prior.safetensors is too large for a model")
    path.unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        refused(bundle.folder, "prior.safetensors is not a file")


class Explosive:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was loaded",))


def test_a_pickle_is_never_loaded(bundle: Bundle) -> None:
    """Not even one that has the right name and hash."""
    from hashlib import sha256

    data = pickle.dumps(Explosive())
    (bundle.folder / "prior.safetensors").write_bytes(data)
    files = {**bundle.config["files"], "prior.safetensors": sha256(data).hexdigest()}
    edit(bundle.folder, files=files)
    refused(bundle.folder, "prior.safetensors is not a safetensors file")
    # One that nobody listed lies there unread.
    (bundle.folder / "prior.safetensors").unlink()
    again = make(bundle.folder)
    (again.folder / "weights.pt").write_bytes(data)
    read_bundle(again.folder)
    with pytest.raises(BundleError):
        again.tensors("weights.pt")


def test_a_model_is_replaced_whole(bundle: Bundle) -> None:
    make(bundle.folder, licence="MIT")
    assert read_bundle(bundle.folder).config["licence"] == "MIT"
    # One that fails leaves the old one and nothing else.
    settings = settings_of("tiny")
    del settings["grid"]
    with pytest.raises(BundleError, match="does not state grid"):
        write_bundle(bundle.folder, settings, {})
    assert read_bundle(bundle.folder).config["licence"] == "MIT"
    assert [path.name for path in bundle.folder.parent.iterdir()] == ["tiny"]


def test_a_failed_rename_brings_the_old_model_back(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target) == bundle.folder and Path(source).name == "tiny":
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(OutputError, match="No space left"):
        make(bundle.folder, licence="MIT")
    monkeypatch.undo()
    assert read_bundle(bundle.folder) == bundle
    assert [path.name for path in bundle.folder.parent.iterdir()] == ["tiny"]


def test_what_is_not_a_model_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is not a model"):
        make(tmp_path / "papers")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        make(tmp_path / "file" / "tiny")
    with pytest.raises(ValueError, match="not the folder's"):
        write_bundle(tmp_path / "a", settings_of("b"), {})
    assert (tmp_path / "papers" / "thesis.tex").read_text(encoding="utf-8") == "years of work"


def test_find_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make(tmp_path / "tiny")
    assert find_bundle("tiny", search=[tmp_path]) == bundle.folder
    assert find_bundle(bundle.folder) == bundle.folder
    assert find_bundle(str(bundle.folder)) == bundle.folder
    monkeypatch.chdir(tmp_path)
    assert find_bundle("./tiny").resolve() == bundle.folder
    with pytest.raises(BundleError, match=r"no model smal; .*tiny"):
        find_bundle("smal", search=[tmp_path])
    with pytest.raises(BundleError, match=r"has no model\.json"):
        find_bundle(tmp_path)


def test_folders_of_models_are_listed_damaged_or_not(tmp_path: Path) -> None:
    make(tmp_path / "one")
    make(tmp_path / "two")
    (tmp_path / "notes").mkdir()
    (tmp_path / "two" / "prior.safetensors").unlink()
    mine = [path.name for path in bundle_folders([tmp_path]) if path.parent == tmp_path]
    assert mine == ["one", "two"]


def test_shipped_models_are_whole() -> None:
    assert default_models_folder().is_dir()
    for folder in bundle_folders():
        bundle = read_bundle(folder)
        assert bundle.name == folder.name
        assert bundle.card(), "a shipped model has a card"
    total = sum(path.stat().st_size for path in default_models_folder().rglob("*.safetensors"))
    assert total <= 40 * 2**20
