"""What happens when memory runs out: the same result in smaller pieces, or on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.inference import latent_model
from LatentSpaceRestorationLib.model import Model
from LatentSpaceRestorationLib.networks.vqvae import VQVAE
from LatentSpaceRestorationLib.runtime.placement import Placement, is_out_of_memory
from tiny_model import generated_brain


def device_with_room_for(
    most: int, error: Exception, tried: list[tuple[str, int]]
) -> Callable[[int, str], str]:
    """Work that fails with ``error`` for pieces above ``most``, except on the CPU."""

    def work(size: int, device: str) -> str:
        tried.append((device, size))
        if device != "cpu" and size > most:
            raise error
        return f"{size} on {device}"

    return work


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
    ids=["CUDA", "MPS"],
)
def test_pieces_are_halved_until_they_fit_and_stay_so(error: Exception) -> None:
    placement = Placement("meta", {"slices": 64, "sequences": 1024})
    tried: list[tuple[str, int]] = []
    work = device_with_room_for(20, error, tried)
    assert placement.run("slices", work) == "16 on meta"
    assert [size for _, size in tried] == [64, 32, 16]
    tried.clear()
    assert placement.run("slices", work) == "16 on meta"
    assert tried == [("meta", 16)]
    assert placement.warnings == ("memory ran out on meta; it went on in smaller pieces",)


def test_a_device_without_room_is_left_for_the_cpu() -> None:
    placement = Placement("meta", {"sequences": 256, "slices": 16})
    tried: list[tuple[str, int]] = []
    work = device_with_room_for(0, torch.OutOfMemoryError("CUDA out of memory"), tried)
    assert placement.run("sequences", work) == "256 on cpu"
    assert tried[-2:] == [("meta", 8), ("cpu", 256)]
    assert placement.device == "cpu"
    assert placement.warnings == ("memory ran out on meta; it went on on the CPU",)


def test_a_device_that_lacks_an_operation_is_left_for_the_cpu() -> None:
    placement = Placement("meta", {"slices": 16})
    lacking = NotImplementedError("The operator 'aten::_embedding_bag' is not implemented for MPS")
    tried: list[tuple[str, int]] = []
    assert placement.run("slices", device_with_room_for(0, lacking, tried)) == "16 on cpu"
    assert tried == [("meta", 16), ("cpu", 16)]
    assert "lacks an operation" in placement.warnings[0]


def test_a_cpu_without_room_for_one_piece_is_an_error_and_other_faults_pass() -> None:
    placement = Placement("cpu", {"slices": 4})

    def full(size: int, device: str) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes")

    with pytest.raises(MemoryError, match="a single slice"):
        placement.run("slices", full)

    def broken(size: int, device: str) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        placement.run("slices", broken)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_detection_that_runs_out_of_memory_gives_the_same_map_and_says_so(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = generated_brain((44, 52, 12))
    bundle = read_bundle(tiny_model)
    expected = Detector(Model.load(bundle), None, 2.0).detect(scan, restorations=3)

    decode, restore = VQVAE.decode, latent_model.restore

    def small_decode(self: VQVAE, codes: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        if len(codes) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return decode(self, codes, position)

    def small_restore(*args: object, chunk: int, **options: object) -> torch.Tensor:
        if chunk > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return restore(*args, chunk=chunk, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(VQVAE, "decode", small_decode)
    monkeypatch.setattr(latent_model, "restore", small_restore)
    detector = Detector(Model.load(bundle), None, 2.0)
    found = detector.detect(scan, restorations=3)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-5)
    np.testing.assert_allclose(found.restoration, expected.restoration, rtol=1e-6)
    assert "memory ran out on cpu; it went on in smaller pieces" in found.warnings
    assert not any("memory" in warning for warning in expected.warnings)
