"""A training that a form begins: its settings, its commands, and what its lines say."""

from __future__ import annotations

from pathlib import Path

import pytest
from LatentSpaceRestorationLib.cli.main import parser
from LatentSpaceRestorationLib.errors import ConfigError, OutputError
from LatentSpaceRestorationLib.training.config import read_config
from LatentSpaceRestorationLib.training.engine.progress import TrainingProgress, progress_in
from LatentSpaceRestorationLib.training.engine.run import Run, Schedule
from LatentSpaceRestorationLib.training.job import TrainingJob
from torch import nn


def own(place: Path, **more: object) -> TrainingJob:
    (place / "healthy scans").mkdir(exist_ok=True)
    given = {"scans": place / "healthy scans", "name": "mine", "folder": place / "work"}
    return TrainingJob(**{**given, **more})  # type: ignore[arg-type]


def test_settings_are_what_was_asked_for(tmp_path: Path) -> None:
    wanted = own(tmp_path, population='adults "20 to 40"\\ä')
    wanted.write_settings()
    config = read_config(wanted.settings)
    assert config.model.name == "mine"
    assert config.model.population == 'adults "20 to 40"\\ä'
    assert Path(config.data.source) == tmp_path / "healthy scans"
    assert config.vqvae.training.steps == 1100, "all else is the shipped model's"


def test_a_training_goes_on_by_the_settings_that_it_began_with(tmp_path: Path) -> None:
    wanted = own(tmp_path)
    wanted.write_settings()
    more = "[grid]\nspacing_mm = 1.5\n"
    wanted.settings.write_text(wanted.settings.read_text(encoding="utf-8") + more)
    wanted.write_settings()
    assert read_config(wanted.settings).grid.spacing_mm == 1.5
    (tmp_path / "others").mkdir()
    with pytest.raises(ConfigError, match="is of other scans"):
        own(tmp_path, scans=tmp_path / "others").write_settings()


def test_what_cannot_be(tmp_path: Path) -> None:
    for name in ("", "../out", ".hidden", "a b", "ä"):
        with pytest.raises(ConfigError, match="cannot be a folder's"):
            own(tmp_path, name=name).write_settings()
    with pytest.raises(ConfigError, match="is not there"):
        own(tmp_path, scans=tmp_path / "nowhere").write_settings()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        own(tmp_path, folder=tmp_path / "file" / "below").write_settings()


def test_the_commands_are_those_of_lsr(tmp_path: Path) -> None:
    wanted = own(tmp_path, device="cpu")
    train, calibrate = (parser().parse_args(command) for command in wanted.commands())
    assert (train.config, train.work, train.device) == (wanted.settings, wanted.work, "cpu")
    assert (calibrate.model, calibrate.methods) == (str(wanted.model), ["lsr"])


def test_a_model_is_adapted_by_one_command_without_settings(tmp_path: Path) -> None:
    wanted = own(tmp_path, device="cpu", adapts="brain-t1")
    wanted.write_settings()
    assert not wanted.settings.exists()
    assert wanted.folder.is_dir()
    (command,) = wanted.commands()
    asked = parser().parse_args(command)
    assert (asked.model, asked.source, asked.device) == ("brain-t1", [wanted.scans], "cpu")
    assert asked.output / asked.name == wanted.model
    with pytest.raises(ConfigError, match="cannot be a folder's"):
        own(tmp_path, name="a b", adapts="brain-t1").write_settings()


def test_lines_of_a_training_tell_how_far_it_is(tmp_path: Path) -> None:
    from LatentSpaceRestorationLib.training.engine.loop import train

    lines: list[str] = []
    schedule = Schedule(60, warmup=1, precision="float32")
    run = Run(schedule, tmp_path / "masked.pt", report=lines.append)
    train(nn.Linear(2, 1), lambda model, *_: (model.weight.square().sum(), {"loss": 1.0}), run)
    found = [news for line in lines if (news := progress_in(line))]
    assert [(n.stage, n.done, n.total) for n in found] == [("masked", 50, 60), ("masked", 60, 60)]
    assert all(news.left.endswith(" left") for news in found)


def test_other_lines() -> None:
    assert progress_in("preparing train: 3 of 12") == TrainingProgress("prepare", 3, 12)
    assert progress_in("encoded copy 2 of 8") == TrainingProgress("encode", 2, 8)
    assert progress_in("read p01 (2 of 5)") == TrainingProgress("calibrate", 2, 5)
    for line in ("", "left out: p01: no", "step 5  held out: loss 1", "step 5/6 of unet  1 s left"):
        assert progress_in(line) is None, line


def test_preparing_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from LatentSpaceRestorationLib.training import pipeline

    now = iter(range(0, 100, 3))
    monkeypatch.setattr(pipeline.time, "monotonic", lambda: float(next(now)))
    lines: list[str] = []
    assert len(list(pipeline._counted([object()] * 3, "preparing train", lines.append))) == 3
    found = [progress_in(line) for line in lines]
    assert [news and news.done for news in found] == [0, 1, 2]
