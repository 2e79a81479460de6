"""The prior evaluated row by row and column by column, keeping what later places will need.

Within a row, everything that depends on the rows above alone is computed first, for the whole row
(``start_row``): the vertical features of the row above, the upper taps of the horizontal and of the
attention's convolutions. What is left for a place (``advance``) are the taps of its own row: about
a quarter of the arithmetic. Each step is a GEMM over all sequences.

Every buffer is (columns, sequences, channels): a run of columns is one contiguous matrix of
(columns * sequences, channels), and a tap of a convolution is the same matrix a column further.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .packed_prior import PackedBlock, PackedGate, PackedPrior, Taps

_PAD = 2  # columns of zeros at each side: the reach of the widest kernel, 5
_RUN_BYTES = 2**19  # whole rows are worked on in runs of columns whose sums stay in a core's cache


class Strip:
    """One row of features, (columns + 2 * pad, n, channels), whose pads stay zero."""

    def __init__(self, columns: int, n: int, channels: int, like: Tensor, pad: int = 0) -> None:
        self.data = like.new_zeros(columns + 2 * pad, n, channels)
        self.pad = pad
        self._spans: dict[tuple[int, int], Tensor] = {}

    def span(self, low: int, high: int) -> Tensor:
        """Columns low to high - 1 (pads included, from -pad) as ((high - low) * n, channels)."""
        view = self._spans.get((low, high))
        if view is None:
            view = self.data[low + self.pad : high + self.pad].flatten(0, 1)
            self._spans[low, high] = view
        return view


def _row_sums(table: Tensor, index: Tensor) -> Tensor:
    """(m, channels): for each row of ``index`` (m, taps), the sum of these rows of ``table``."""
    if table.device.type == "mps":  # where embedding_bag is missing, or young
        return F.embedding(index, table).sum(dim=1)
    return F.embedding_bag(index, table, mode="sum")


class _PairState:
    """The caches of a vertical and a horizontal gated block. "elu" strips hold ELU(input)."""

    def __init__(self, engine: RowEngine, gates: tuple[PackedGate, PackedGate], first: bool):
        self.vertical, self.horizontal = gates
        columns, channels = engine.columns, engine.channels
        # The first pair's inputs are the block's, whose ELU both its blocks share: see _BlockState.
        self.v_elu = [] if first else [engine.strip(columns, channels, _PAD) for _ in range(2)]
        self.h_elu = [] if first else [engine.strip(columns, channels, _PAD)] * 2
        self.v_middle = [engine.strip(columns, channels, _PAD) for _ in range(2)]
        self.h_middle = engine.strip(columns, channels, _PAD)
        self.from_above1 = engine.strip(columns, channels)
        self.from_above2 = engine.strip(columns, 2 * channels)
        self.v_offset = self.vertical.offset(engine.condition)
        self.h_offset = self.horizontal.offset(engine.condition)


class _BlockState:
    """The caches of one block. Strips in lists rotate with the row."""

    def __init__(self, engine: RowEngine, packed: PackedBlock) -> None:
        self.packed = packed
        columns, channels = engine.columns, engine.channels
        low_columns, values = columns // engine.stride, packed.to_value.shape[1]
        self.input = [engine.strip(columns, channels, _PAD) for _ in range(3)]
        self.output = [engine.strip(columns, channels, _PAD) for _ in range(3)]
        self.input_elu = [engine.strip(columns, channels, _PAD) for _ in range(2)]
        self.pairs = [
            _PairState(engine, gates, first=j == 0)
            for j, gates in enumerate(zip(packed.vertical, packed.horizontal, strict=True))
        ]
        self.pairs[0].v_elu = self.pairs[0].h_elu = self.input_elu
        self.key = engine.strip(low_columns, channels)
        self.query = engine.strip(low_columns, channels)
        self.attended = engine.strip(low_columns, values)  # ELU of the attention's result
        self.merge = engine.strip(columns, channels)
        positions = low_columns * (engine.rows // engine.stride)
        self.keys = engine.table(packed.to_key.shape[1], positions)
        self.values = engine.table(positions, values)


class RowEngine:
    """The prior over ``n`` code grids, advanced in raster order.

    For each row: ``start_row``, then ``advance`` over consecutive runs of its columns. The codes
    may be changed by ``set_codes`` at a place that is the last one advanced over.

    Args:
        packed: the prior.
        codes: (n, H, W) int64.
        condition: (n, position channels), or None for a prior without position.
    """

    def __init__(self, packed: PackedPrior, codes: Tensor, condition: Tensor | None) -> None:
        self.packed, self.condition = packed, condition
        self.rows, self.columns = packed.shape
        self.channels, self.stride = packed.channels, packed.stride
        self.n, self.row = len(codes), -1
        self._padded = codes.new_full((self.n, self.rows + 3, self.columns + 6), packed.codes)
        self._padded[:, 3:, 3:-3] = codes
        self._tap_offset = torch.arange(24, device=codes.device) * (packed.codes + 1)
        self._kept: list[tuple[Tensor, int]] = []  # every cache, and which of its axes is n
        self._first = self.strip(self.columns, self.channels)
        self._blocks = [_BlockState(self, block) for block in packed.blocks]
        # Scratch, used up within a call.
        self._one = Strip(self.columns, self.n, self.channels, packed.table)
        self._two = Strip(self.columns, self.n, 2 * self.channels, packed.table)
        self._vertical = Strip(self.columns, self.n, self.channels, packed.table)
        step = max(1, _RUN_BYTES // (8 * self.channels * max(1, self.n)))
        self._runs = [(c, min(c + step, self.columns)) for c in range(0, self.columns, step)]

    def strip(self, columns: int, channels: int, pad: int = 0) -> Strip:
        """A new strip of caches."""
        strip = Strip(columns, self.n, channels, self.packed.table, pad)
        self._kept.append((strip.data, 1))
        return strip

    def table(self, *shape: int) -> Tensor:
        """A new cache of (n, *shape)."""
        table = self.packed.table.new_zeros(self.n, *shape)
        self._kept.append((table, 0))
        return table

    @property
    def codes(self) -> Tensor:
        """(n, H, W) int64, as they stand."""
        return self._padded[:, 3:, 3:-3]

    def set_codes(self, column: int, codes: Tensor) -> None:
        """Set the codes (n,) of the current row at ``column``."""
        self._padded[:, self.row + 3, column + 3] = codes

    def repeated(self, index: Tensor) -> RowEngine:
        """An engine at the same place whose sequence i is this one's sequence ``index[i]``."""
        condition = None if self.condition is None else self.condition[index]
        other = RowEngine(self.packed, self.codes[index], condition)
        other.row = self.row
        for (mine, axis), (theirs, _) in zip(self._kept, other._kept, strict=True):
            theirs.copy_(mine.index_select(axis, index))
        return other

    # The whole row, from the rows above.

    def start_row(self) -> None:
        """Go to the next row. All columns of the row before must have been advanced over."""
        self.row += 1
        windows = self._padded[:, self.row : self.row + 3].unfold(2, 7, 1)  # (n, 3, W, 7)
        index = windows.permute(2, 0, 1, 3).reshape(-1, 21) + self._tap_offset[:21]
        self._first.span(0, self.columns).copy_(_row_sums(self.packed.table, index))
        for block in self._blocks:
            self._start_pairs(block)
            if self.row % self.stride == 0:
                self._start_attention(block)
            else:
                self._upsample_row(block)

    def _start_pairs(self, block: _BlockState) -> None:
        above = self.row - 1
        vertical = block.input[above % 3]
        for j, pair in enumerate(block.pairs):
            sum1, sum2, gate = pair.from_above1, pair.from_above2, pair.horizontal
            sum1.data.copy_(pair.h_offset.expand(self.n, -1))
            sum2.data.copy_(gate.bias2)
            if self.row == 0:
                continue
            following = block.pairs[j + 1].v_elu[above % 2] if j + 1 < len(block.pairs) else None
            self._vertical_row(pair, above, vertical, following)
            vertical = self._vertical
            taps1, taps2 = gate.taps1[0], gate.taps2[0]
            for low, high in self._runs:
                out1, out2 = sum1.span(low, high), sum2.span(low, high)
                for c in (0, 1):
                    at = low + c - 1, high + c - 1
                    out1.addmm_(pair.h_elu[above % 2].span(*at), taps1[c])
                    out2.addmm_(pair.h_middle.span(*at), taps2[c])

    def _vertical_row(
        self, pair: _PairState, row: int, features: Strip, following: Strip | None
    ) -> None:
        """A pair's vertical block in ``row``, and its share in the horizontal one of the next row.

        ``features`` are its input; the result goes to ``_vertical``, its ELU to ``following``.
        """
        gate, aux = pair.vertical, pair.horizontal.aux
        assert aux is not None
        middle = pair.v_middle[row % 2]
        middle.data[_PAD : _PAD + self.columns].copy_(pair.v_offset.expand(self.n, -1))
        for low, high in self._runs:
            out = middle.span(low, high)
            self._add_taps(out, pair.v_elu, gate.taps1, row, low, high)
            F.elu_(out)
        for low, high in self._runs:
            out = self._two.span(low, high)
            out.copy_(gate.bias2)
            self._add_taps(out, pair.v_middle, gate.taps2, row, low, high)
            result = self._vertical.span(low, high)
            torch.add(features.span(low, high), F.glu(out, dim=1), out=result)
            activated = (following or self._one).span(low, high)
            F.elu_(activated.copy_(result))
            pair.from_above1.span(low, high).addmm_(activated, aux)

    def _add_taps(
        self, out: Tensor, strips: list[Strip], taps: Taps, row: int, low: int, high: int
    ) -> None:
        """Add a (2, 3) convolution of rows ``row - 1`` and ``row`` at columns low to high - 1."""
        for r in (0, 1):
            strip = strips[(row - 1 + r) % 2]
            for c in (0, 1, 2):
                out.addmm_(strip.span(low + c - 1, high + c - 1), taps[r][c])

    def _start_attention(self, block: _BlockState) -> None:
        """The share of the two rows above in the keys and queries of a row of the attention."""
        packed, low_row = block.packed, self.row // self.stride
        block.key.data.copy_(packed.key_background[low_row, :, None])
        block.query.data.copy_(packed.query_background[low_row, :, None])
        batch = self.columns // self.stride
        for r in (0, 1):
            if self.row - 2 + r < 0:
                continue
            source = (self.row - 2 + r) % 3
            for c in range(5):
                # One small GEMM a low-resolution column, since those columns are apart in memory.
                columns = slice(c, c + self.columns, self.stride)
                inputs = block.input[source].data[columns]
                outputs = block.output[source].data[columns]
                block.key.data.baddbmm_(inputs, packed.key_input[r][c].expand(batch, -1, -1))
                block.key.data.baddbmm_(outputs, packed.key_output[r][c].expand(batch, -1, -1))
                block.query.data.baddbmm_(outputs, packed.query_output[r][c].expand(batch, -1, -1))

    def _upsample_row(self, block: _BlockState) -> None:
        """The attention's share in a row that is not the first of its row of the attention."""
        packed, width = block.packed, self.columns
        taps = packed.upsample[self.row % self.stride]
        for c in range(self.stride):
            attended = block.attended.span(0, width // self.stride)
            up = torch.addmm(packed.upsample_bias, attended, taps[c])
            self._one.data[c :: self.stride] = up.unflatten(0, (-1, self.n))
        self._to_merge(block, 0, width)

    def _to_merge(self, block: _BlockState, low: int, high: int) -> None:
        """Begin the merging block's first convolution with its auxiliary input, in ``_one``."""
        up = F.elu_(self._one.span(low, high))
        merge = block.packed.merge
        torch.addmm(merge.bias1, up, block.packed.merge_aux, out=block.merge.span(low, high))

    # The places of a row.

    def advance(self, low: int, high: int, logits: bool) -> Tensor | None:
        """Go over columns low to high - 1 of the current row; all codes before the last are final.

        Returns:
            (n, codes): the logits at column high - 1 if ``logits``, else None.
        """
        first = self._blocks[0].input[self.row % 3].span(low, high)
        windows = self._padded[:, self.row + 3, low : high + 2].unfold(1, 3, 1)  # (n, columns, 3)
        index = windows.transpose(0, 1).reshape(-1, 3) + self._tap_offset[21:]
        left = _row_sums(self.packed.table, index)
        torch.add(self._first.span(low, high), left, out=first)
        features = first
        for i, block in enumerate(self._blocks):
            self._horizontal(block, low, high)
            if self.row % self.stride == 0:
                for column in range(-(-low // self.stride), -(-high // self.stride)):
                    self._attend(block, column)
            if i + 1 < len(self._blocks):
                features = self._blocks[i + 1].input[self.row % 3].span(low, high)
                self._merge(block, low, high, features)
        if not logits:
            return None
        features = self._merge(self._blocks[-1], high - 1, high, self._one.span(0, 1))
        return torch.addmm(self.packed.last_bias, F.elu_(features), self.packed.last)

    def _horizontal(self, block: _BlockState, low: int, high: int) -> None:
        features = block.input[self.row % 3].span(low, high)
        out = self._two.span(0, high - low)
        for pair in block.pairs:
            gate = pair.horizontal
            inputs = pair.h_elu[self.row % 2]
            middle = pair.h_middle
            F.elu_(inputs.span(low, high).copy_(features))
            here = middle.span(low, high)
            torch.addmm(
                pair.from_above1.span(low, high), inputs.span(low, high), gate.taps1[1][1], out=here
            )
            F.elu_(here.addmm_(inputs.span(low - 1, high - 1), gate.taps1[1][0]))
            torch.addmm(pair.from_above2.span(low, high), here, gate.taps2[1][1], out=out)
            out.addmm_(middle.span(low - 1, high - 1), gate.taps2[1][0])
            features = F.glu(out, dim=1).add_(features)
        block.output[self.row % 3].span(low, high).copy_(features)

    def _attend(self, block: _BlockState, column: int) -> None:
        """The attention at one column of its own grid, and its share in the merging block."""
        packed, stride = block.packed, self.stride
        key, query = block.key.span(column, column + 1), block.query.span(column, column + 1)
        for c in range(3):
            at = column * stride + c - 2
            outputs = block.output[self.row % 3].span(at, at + 1)
            key.addmm_(block.input[self.row % 3].span(at, at + 1), packed.key_input[2][c])
            key.addmm_(outputs, packed.key_output[2][c])
            query.addmm_(outputs, packed.query_output[2][c])
        F.elu_(key)
        before = self.row // stride * (self.columns // stride) + column
        attended = block.attended.span(column, column + 1)
        if before == 0:
            attended.zero_()
        else:
            q = self._gate(packed.query_gate, F.elu_(query))
            q = torch.addmm(packed.query_bias, q, packed.to_query)
            weights = torch.bmm(q[:, None], block.keys[:, :, :before]).softmax(dim=2)
            attended.copy_(torch.bmm(weights, block.values[:, :before])[:, 0])
            F.elu_(attended)
        k = self._gate(packed.key_gate, key)
        block.keys[:, :, before] = torch.addmm(packed.key_bias, k, packed.to_key)
        v = self._gate(packed.value_gate, key)
        block.values[:, before] = torch.addmm(packed.value_bias, v, packed.to_value)
        low = column * stride
        for c in range(stride):
            up = self._one.span(low + c, low + c + 1)
            torch.addmm(packed.upsample_bias, attended, packed.upsample[0][c], out=up)
        self._to_merge(block, low, low + stride)

    def _gate(self, gate: PackedGate, x: Tensor) -> Tensor:
        """A 1x1 gated block without auxiliary input."""
        middle = F.elu_(torch.addmm(gate.bias1, F.elu(x), gate.taps1[0][0]))
        return F.glu(torch.addmm(gate.bias2, middle, gate.taps2[0][0]), dim=1).add_(x)

    def _merge(self, block: _BlockState, low: int, high: int, out: Tensor) -> Tensor:
        gate = block.packed.merge
        features = block.output[self.row % 3].span(low, high)
        middle = torch.addmm(block.merge.span(low, high), F.elu(features), gate.taps1[0][0])
        gated = torch.addmm(gate.bias2, F.elu_(middle), gate.taps2[0][0])
        return torch.add(features, F.glu(gated, dim=1), out=out)
