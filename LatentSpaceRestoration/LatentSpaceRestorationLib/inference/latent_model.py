"""The networks at work on a prepared scan: codes, likelihoods, restorations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from ..bundle import schema
from ..bundle.bundle import Bundle
from ..calibration.code_values import CodeValues, by_cell
from ..errors import Cancelled
from ..networks.layers import channels_last
from ..networks.masked import MaskedPrior
from ..networks.pixelsnail import PixelSNAIL
from ..networks.vqvae import VQVAE, folded
from ..preprocessing.slices import PreparedScan
from ..runtime.placement import SIZES, SIZES_OFF_CPU, Placement
from ..runtime.progress import Step
from ..runtime.threads import in_pieces
from ..sampling.masked import Holes, OutsideView, look_into, outside_view
from ..sampling.restore import nll as code_nll
from ..sampling.restore import restore
from .averages import Averages
from .readings import Decoded, Expected, Reading, ReadingPlan


class LatentModel:
    """VQ-VAE and priors of a bundle, in evaluation mode.

    Attributes:
        masked: the masked prior; None in a model without one.
        placement: the device, and how much goes through at a time; both change when memory runs
            out, and the results do not.
    """

    def __init__(
        self,
        vqvae: VQVAE,
        prior: PixelSNAIL,
        device: str = "cpu",
        masked: MaskedPrior | None = None,
        precision: str = "float32",
    ) -> None:
        self.vqvae = folded(vqvae).to(device)
        self.prior = prior.to(device).eval()
        self.masked = masked if masked is None else channels_last(masked.to(device).eval())
        sizes = SIZES if device == "cpu" else SIZES_OFF_CPU
        self.placement = Placement(device, sizes, precision)

    @classmethod
    def load(cls, bundle: Bundle, device: str = "cpu", precision: str = "float32") -> LatentModel:
        """Read the weights of a bundle.

        Raises:
            BundleError: a file is damaged or does not fit the settings.
        """
        try:
            vqvae = VQVAE(**bundle.config["vqvae"])
            vqvae.load_state_dict(bundle.weights(schema.VQVAE))
            kind = dict(bundle.config["prior"])
            kind.pop("kind", None)
            prior = PixelSNAIL.from_tensors(bundle.weights(schema.PRIOR), **kind)
            masked = _masked_prior(bundle)
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise bundle.misfit(error) from error
        return cls(vqvae, prior, device, masked, precision)

    def read(self, prepared: PreparedScan, step: Step | None = None) -> Reading:
        """Encode every slice, in one pass, and score its codes, in another.

        Args:
            prepared: the scan in model space.
            step: called with the fraction done.
        """
        position = _tensor(prepared.position)
        codes = self._encode(prepared, step)

        def likelihood(size: int, device: str) -> Tensor:
            return code_nll(
                self.prior.to(device), codes.to(device), position.to(device), chunk=size
            ).cpu()

        nll = self.placement.run("likelihoods", likelihood)
        return Reading(codes.numpy(), nll.numpy(), _with_brain(prepared.mask, codes.shape[1:]))

    def expect(
        self,
        prepared: PreparedScan,
        plan: ReadingPlan,
        values: CodeValues,
        step: Step | None = None,
    ) -> Expected:
        """What each tile of codes should be, from what is around it.

        Args:
            prepared: the scan in model space.
            plan: which slices are read, and how.
            values: what the codes stand for.
            step: called with the fraction done.
        """
        assert self.masked is not None
        brain = _with_brain(prepared.mask, self.masked.shape)
        readings = []
        parts = plan.of(prepared)
        for number, (numbers, turned) in enumerate(parts):
            some = prepared.some(numbers)
            found = self._expect(
                some.mirrored() if turned else some,
                plan.tile,
                values,
                _part_of(step, number, len(parts)),
            )
            readings.append((numbers, turned, found))
        return Expected.of_readings(brain, readings)

    def completed(
        self, prepared: PreparedScan, expected: Expected, step: Step | None = None
    ) -> Decoded:
        """Codes of all slices, and what is decoded from them."""
        missing = np.flatnonzero(~expected.decodes)
        if not len(missing):
            return expected.decoded
        some, own = prepared.some(missing), np.flatnonzero(expected.decodes)
        codes = self._encode(some, step).numpy()
        others = Decoded(codes, self.reconstruct(some, codes))
        parts = [(own, expected.decoded.some(own)), (missing, others)]
        return Decoded.of_some(len(prepared.slices), parts)

    def _expect(
        self, prepared: PreparedScan, tile: int, values: CodeValues, step: Step | None
    ) -> Expected:
        codes = self._encode(prepared, lambda share: step(0.4 * share) if step else None)
        position = _tensor(prepared.position)
        masked = self.masked
        assert masked is not None

        def look(size: int, device: str) -> OutsideView:
            keys = self.vqvae.to(device).codebook.keys
            moments = torch.from_numpy(values.moments()).to(device)
            return outside_view(
                masked.to(device),
                codes.to(device),
                position.to(device),
                torch.cat([keys, moments], dim=1),
                size=tile,
                chunk=size,
                step=lambda share: step(0.2 + 0.6 * share) if step else None,
                arithmetic=self.placement.arithmetic,
            ).cpu()

        view = self.placement.run("likelihoods", look)
        latents = view.expected[:, :-3]
        intensity, square, expected_residual = view.expected[:, -3:].unbind(1)

        def decode(size: int, device: str) -> np.ndarray:
            decoder = self.vqvae.to(device)

            def some(part: slice) -> Tensor:
                where = latents[part].to(device), position[part].to(device)
                with self.placement.arithmetic():
                    return decoder.decode_latents(*where).float().cpu()

            images = in_pieces(some, len(latents), size, device)
            return np.asarray(torch.cat(images)[:, 0].float().numpy())

        image = self.placement.run("slices", decode)
        decoded = Decoded(codes.numpy(), self.reconstruct(prepared, codes.numpy()))
        return Expected(
            read=np.ones(len(codes), bool),
            brain=_with_brain(prepared.mask, tuple(codes.shape[1:])),
            nll=view.nll.numpy(),
            image=image,
            variance=(square - intensity**2).clamp(min=0.0).numpy(),
            residual=np.abs(prepared.slices - decoded.images),
            expected_residual=expected_residual.numpy(),
            entropy=view.entropy.numpy(),
            nll_variance=view.nll_variance.numpy(),
            decoded=decoded,
            decodes=np.ones(len(codes), bool),
        )

    def _encode(self, prepared: PreparedScan, step: Step | None) -> Tensor:
        slices = torch.from_numpy(prepared.slices)[:, None]
        position = _tensor(prepared.position)

        def encode(size: int, device: str) -> Tensor:
            encoder = self.vqvae.to(device)

            def some(part: slice) -> Tensor:
                return encoder.encode(slices[part].to(device), position[part].to(device)).cpu()

            report = None if step is None else lambda share: step(0.5 * share)
            return torch.cat(in_pieces(some, len(slices), size, device, report))

        return self.placement.run("slices", encode)

    def resample(
        self,
        prepared: PreparedScan,
        reading: Reading,
        *,
        threshold: float,
        numbers: range,
        seed: int,
        step: Step | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        sampler: str = "cached",
    ) -> np.ndarray:
        """Replace unlikely codes of the brain.

        Args:
            prepared: the scan in model space.
            reading: its codes.
            threshold: nats; codes whose NLL exceeds it are resampled, in the brain only.
            numbers: of the restorations that are made.
            seed: of the draws.
            step: called with the fraction done.
            is_cancelled: asked between rows.
            sampler: see :func:`restore.restore`.

        Returns:
            (N, s, h, w) int64.
        """
        limits = np.where(reading.brain, threshold, np.inf).astype(np.float32)

        def sample(size: int, device: str) -> Tensor:
            return restore(
                self.prior.to(device),
                torch.from_numpy(reading.codes).to(device),
                _tensor(prepared.position),
                thresholds=limits,
                restorations=len(numbers),
                first_restoration=numbers.start,
                seed=seed,
                known_nll=torch.from_numpy(reading.nll),
                sampler=sampler,
                chunk=size,
                progress=step,
                is_cancelled=is_cancelled,
            ).cpu()

        return np.asarray(self.placement.run("sequences", sample).numpy())

    def look_into(
        self, prepared: PreparedScan, codes: np.ndarray, holes: np.ndarray, step: Step | None = None
    ) -> Holes:
        """What the masked prior expects in holes, from the codes outside them.

        Args:
            prepared: the scan in model space.
            codes: (N, h, w) int64, its codes.
            holes: (N, h, w) bool.
            step: called with the fraction done.
        """
        masked = self.masked
        assert masked is not None

        def look(size: int, device: str) -> Holes:
            return look_into(
                masked.to(device),
                torch.from_numpy(codes).to(device),
                _tensor(prepared.position).to(device),
                torch.from_numpy(holes).to(device),
                chunk=size,
                step=step,
                arithmetic=self.placement.arithmetic,
            )

        return self.placement.run("likelihoods", look)

    def reconstruct(
        self,
        prepared: PreparedScan,
        codes: np.ndarray,
        step: Step | None = None,
        known: Decoded | None = None,
    ) -> np.ndarray:
        """The scan from its own codes, or from others in their place, (N, rows, columns) float32.

        Args:
            prepared: the scan in model space.
            codes: (N, h, w) int64.
            step: called with the fraction done.
            known: what is decoded already.
        """
        numbers = range(len(codes))
        return np.stack(list(self._images(prepared, numbers, list(codes), step, known=known)))

    def decode(
        self,
        prepared: PreparedScan,
        codes: np.ndarray,
        grids: np.ndarray,
        averages: Averages,
        step: Step | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        known: Decoded | None = None,
    ) -> None:
        """Decode restored code grids, each distinct one of a slice once, into running averages.

        Args:
            prepared: the scan in model space.
            codes: (N, h, w) int64, its codes.
            grids: (N, s, h, w) int64 from :meth:`resample`.
            averages: what the images are added to.
            step: called with the fraction done.
            is_cancelled: asked between pieces.
            known: what is decoded already.
        """
        distinct = []
        for i, of_slice in enumerate(grids):
            keys = [grid.tobytes() for grid in of_slice]
            counts, by_key = Counter(keys), dict(zip(keys, of_slice, strict=True))
            distinct += [(i, grid, counts[key]) for key, grid in by_key.items()]
        numbers, grids_of = [i for i, _, _ in distinct], [grid for _, grid, _ in distinct]
        images = self._images(prepared, numbers, grids_of, step, is_cancelled, known)
        for (i, _, times), image in zip(distinct, images, strict=True):
            averages.add(i, image, times)
        averages.close_group(grids.shape[1], (grids != codes[:, None]).mean(axis=1))

    def _images(
        self,
        prepared: PreparedScan,
        numbers: Sequence[int],
        codes: Sequence[np.ndarray],
        step: Step | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        known: Decoded | None = None,
    ) -> Iterator[np.ndarray]:
        """Decode grids of codes.

        Args:
            numbers: slice of each grid.
            codes: (h, w) int64 each.
            known: what is decoded already.

        Yields:
            (rows, columns) float32 each.
        """
        if known is not None:
            is_known = [
                np.array_equal(grid, known.codes[i]) for i, grid in zip(numbers, codes, strict=True)
            ]
            new = [at for at, one in enumerate(is_known) if not one]
            made = self._images(
                prepared, [numbers[at] for at in new], [codes[at] for at in new], step, is_cancelled
            )
            for i, one in zip(numbers, is_known, strict=True):
                yield known.images[i] if one else next(made)
            return
        position = _tensor(prepared.position)

        def report(share: float) -> None:
            if is_cancelled is not None and is_cancelled():
                raise Cancelled("cancelled")
            if step is not None:
                step(share)

        def images(size: int, device: str) -> list[np.ndarray]:
            decoder = self.vqvae.to(device)

            def some(part: slice) -> np.ndarray:
                grids = torch.from_numpy(np.stack(codes[part])).to(device)
                places = position[list(numbers[part])].to(device)
                with self.placement.arithmetic():
                    images = decoder.decode(grids, places)
                return np.asarray(images[:, 0].float().cpu().numpy())

            return in_pieces(some, len(codes), size, device, report)

        yield from chain.from_iterable(self.placement.run("slices", images))


def _with_brain(mask: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """(N, h, w) bool, cells of an (h, w) code grid that have brain in them."""
    return by_cell(mask, (len(mask), *grid)) > 0


def _part_of(step: Step | None, number: int, count: int) -> Step | None:
    """Of several parts that take the same time, what one tells."""
    if step is None:
        return None
    return lambda share: step((number + share) / count)


def _masked_prior(bundle: Bundle) -> MaskedPrior | None:
    if not bundle.has_network("masked"):
        return None
    prior = MaskedPrior(**bundle.config["masked"])
    prior.load_state_dict(bundle.weights(schema.MASKED))
    return prior


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
