"""The file of settings: defaults, overrides, and one line for what is wrong in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Lsr, one_line
from LatentSpaceRestorationLib.bundle.bundle import default_models_folder, read_bundle
from LatentSpaceRestorationLib.errors import ConfigError
from LatentSpaceRestorationLib.training import config as config_module
from LatentSpaceRestorationLib.training.config import Config, as_json, read_config, write_config
from LatentSpaceRestorationLib.training.engine.work_lock import is_held, work_lock

RECIPE = Path(config_module.__file__).parent / "recipes" / "brain-t1.toml"


def write(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text)
    return file


def test_an_empty_file_is_the_recipe_of_the_shipped_models(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "")) == Config()
    recipe = read_config(RECIPE)
    assert recipe.data.source == str(RECIPE.parent / "subjects.tsv")
    assert replace(recipe, model=Config().model, data=Config().data) == Config()
    shipped = read_bundle(default_models_folder() / recipe.model.name).config
    told = as_json(recipe)
    for part in ("vqvae", "prior"):
        network = told[part]["network"]
        for key, value in shipped[part].items():
            if key in network:
                assert network[key] == (tuple(value) if isinstance(value, list) else value)
    assert list(recipe.code_shape) == shipped["prior"]["shape"]
    assert told["data"]["source"] == "subjects.tsv"


def test_settings_come_back_as_they_were_written(tmp_path: Path) -> None:
    changes = [
        "vqvae.network.channels=[4, 8]",
        "prior.training.learning_rate=1e-4",
        'model.population=A "quoted" group',
        "vqvae.network.encoder_position=true",
        "volume_augmentation.blur_mm=2",
    ]
    config = read_config(write(tmp_path, "[vqvae.training]\nsteps = 7\n"), changes)
    assert config.vqvae.network.channels == (4, 8)
    assert config.vqvae.training == replace(Config().vqvae.training, steps=7)
    assert config.prior.training.learning_rate == 1e-4
    assert config.model.population == 'A "quoted" group'
    assert config.volume_augmentation.blur_mm == 2.0
    assert read_config(write(tmp_path, write_config(config))) == config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[vqvae.network]\nchanels = [1]\n",
            "no setting vqvae.network.chanels; the nearest is vqv",
        ),
        (
            "[vqvae]\nchannels = [1]\n",
            "no setting vqvae.channels; the nearest is vqvae.network.cha",
        ),
        ("[vqave]\nx = 1\n", "no setting vqave; the nearest is vqvae"),
        ("[grid]\nzzzz = 1\n", "no setting grid.zzzz; there are rows, columns, spacing_mm"),
        (
            "[vqvae.training]\nsteps = 1.5\n",
            "vqvae.training.steps is 1.5 and should be a whole num",
        ),
        ("[vqvae.training]\nsteps = true\n", "steps is True and should be a whole number"),
        ("[vqvae.network]\nchannels = 4\n", "channels is 4 and should be a list of whole numbers"),
        ('[vqvae.network]\nchannels = ["a"]\n', "channels is 'a' and should be a whole number"),
        ("vqvae = 4\n", r"vqvae is a section, not a value; write \[vqvae\]"),
        ("[grid]\nrows = 50\n", "multiples of 8, for baseline.network.channels"),
        ("[vqvae.training]\nsteps = 0\n", "steps, batch and warmup should be at least 1"),
        ('[vqvae.training]\nprecision = "half"\n', "precision is 'half' and should be one of"),
        ("[augmentation]\nnoise = -1.0\n", "augmentation.noise is -1.0 and should not be negative"),
        ("[data]\ntune = 0.9\n", "leave nobody to train on"),
        ('[model]\nname = "../up"\n', "model.name is '../up'"),
        ("[grid\n", "is not TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=says) as refusal:
        read_config(file)
    assert str(refusal.value).startswith(str(file))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("grid.rows", "not of the form section.key=value"),
        ("grid.rows=", "should be a whole number"),
        ("grid.row=8", "the nearest is grid.rows"),
    ],
)
def test_a_wrong_override_is_said_in_one_line(tmp_path: Path, change: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        read_config(write(tmp_path, ""), [change])
    assert str(refusal.value).startswith(f"--set {change}")


def test_the_command_answers_in_one_line(tmp_path: Path, lsr: Lsr) -> None:
    file = write(tmp_path, "")
    for status, says, arguments in (
        (2, "no such file|cannot be read", ["train", "vqvae", tmp_path / "none.toml"]),
        (2, "invalid choice", ["train", "unet", file]),
        (2, "name no scans", ["train", "vqvae", file]),
        (2, "is not there to resume", ["train", "vqvae", file, "--resume"]),
        (2, "not a number of minutes", ["train", "vqvae", file, "--minutes", "0"]),
        (3, "no scans found", ["train", "vqvae", file, "--set", f"data.source={tmp_path}/empty"]),
        (3, "cannot be read", ["train", "vqvae", file, "--set", "data.source=/nowhere/at/all"]),
        (2, "there is no model", ["calibrate", "nothing-like-it", tmp_path]),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        got, _, err = lsr(*arguments)
        assert got == status, err
        assert any(part in one_line(err) for part in says.split("|")), err


def test_a_folder_of_work_has_one_training_at_a_time(lsr: Lsr, tmp_path: Path) -> None:
    settings, work = tmp_path / "mine.toml", tmp_path / "work"
    settings.write_text("[data]\nsource = 'nowhere'\n")
    with work_lock(work):
        assert is_held(work)
        status, _, err = lsr("train", "vqvae", settings, "--work", work, "--device", "cpu")
        assert status == 2
        assert "another training works there" in one_line(err)
    assert not is_held(work)
    assert not work.exists(), "nothing was put into it"
    status, _, err = lsr("train", "vqvae", settings, "--work", work, "--device", "cpu")
    assert "nowhere" in one_line(err)
    assert not work.exists()
