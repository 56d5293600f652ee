"""The transforms of Winograd's F(4x4, 3x3), compiled by Numba for this processor.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
section 4.3. One tile is 6x6 inputs and 4x4 outputs. Feature maps are (h, w, channels),
channels side by side, so that the innermost loops are vector instructions; bfloat16
comes as its 16 bits and is computed with in float32. A transform of a tile's rows and
one of its columns make both directions.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import overload

# Where the polynomials of section 4.1 are evaluated besides: 0, a, -a, b, -b, infinity.
# The textbook's 1 and 2 have twice the rounding error in bfloat16
# (docs/performance.md).
POINTS = (0.75, 1.5)
_COMPILED = {
    "nogil": True,  # one thread a strip
    "fastmath": True,
    "error_model": "numpy",
    "cache": True,
}
_RUN = 16  # tiles of a row that are taken together: what they read stays in the cache
_READ = 4 * _RUN + 2  # pixels of a line that they read: 66
_A, _B = (np.float32(point) for point in POINTS)
_A2, _B2, _A3, _B3 = _A * _A, _B * _B, _A * _A * _A, _B * _B * _B
_SUM, _PRODUCT = _A2 + _B2, _A2 * _B2


def _widen(value):
    """A stored value as float32."""


def _narrow(value, like):
    """A float32 as a value of the type of `like`, rounded to the nearest, ties even."""


@overload(_widen)
def _widen_compiled(value):
    if isinstance(value, types.Integer):
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(
            np.float32
        )
    return lambda value: value


@overload(_narrow)
def _narrow_compiled(value, like):
    if not isinstance(like, types.Integer):
        return lambda value, like: value

    def narrow(value, like):
        bits = np.float32(value).view(np.uint32)
        odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    return narrow


@njit(**_COMPILED)
def _take(rows, first, step):
    """Six of `rows`, each so many after the one before."""
    return (
        rows[first],
        rows[first + step],
        rows[first + 2 * step],
        rows[first + 3 * step],
        rows[first + 4 * step],
        rows[first + 5 * step],
    )


@njit(**_COMPILED)
def _span(rows, start, stop):
    """The same part of six rows."""
    return (
        rows[0][start:stop],
        rows[1][start:stop],
        rows[2][start:stop],
        rows[3][start:stop],
        rows[4][start:stop],
        rows[5][start:stop],
    )


@njit(**_COMPILED)
def _enter(source, target):
    """Six values to six, B^T of the paper; `source` and `target` are six rows each."""
    x0, x1, x2, x3, x4, x5 = source
    y0, y1, y2, y3, y4, y5 = target
    zero = y0[0]
    for i in range(x0.shape[0]):
        a, b, c = _widen(x0[i]), _widen(x1[i]), _widen(x2[i])
        d, e, f = _widen(x3[i]), _widen(x4[i]), _widen(x5[i])
        p, q = e - _B2 * c, _A * (d - _B2 * b)
        r, s = e - _A2 * c, _B * (d - _A2 * b)
        y0[i] = _narrow(_PRODUCT * a - _SUM * c + e, zero)
        y1[i] = _narrow(p + q, zero)
        y2[i] = _narrow(p - q, zero)
        y3[i] = _narrow(r + s, zero)
        y4[i] = _narrow(r - s, zero)
        y5[i] = _narrow(_PRODUCT * b - _SUM * d + f, zero)


@njit(**_COMPILED)
def _return(source, target):
    """Four values to six, A of the paper; of `source` the first four rows."""
    x0, x1, x2, x3, _, _ = source
    y0, y1, y2, y3, y4, y5 = target
    zero = y0[0]
    for i in range(x0.shape[0]):
        a, b, c, d = _widen(x0[i]), _widen(x1[i]), _widen(x2[i]), _widen(x3[i])
        p, q = a + _A2 * c, _A * b + _A3 * d
        r, s = a + _B2 * c, _B * b + _B3 * d
        y0[i] = _narrow(a, zero)
        y1[i] = _narrow(p + q, zero)
        y2[i] = _narrow(p - q, zero)
        y3[i] = _narrow(r + s, zero)
        y4[i] = _narrow(r - s, zero)
        y5[i] = _narrow(d, zero)


@njit(**_COMPILED)
def enter_strip(x, above, back, first, last, products, steps, rows, nothing):
    """The tiles of rows `first` to `last` of tiles, ready to be multiplied.

    `x` is (h, w, channels) with 0 or 1 rows of zeros `above`; with `back` it is the
    gradient of what `leave_strip` wrote, and the tiles are that of what it was given.
    They go to `products`, (36 * tiles, channels), where `steps` lead from a tile to the
    next and from one of the 36 to the next. `rows` is room, (6, 66 * channels) float32;
    `nothing` are zeros, as many as a row of `x` has values.
    """
    height, width, channels = x.shape
    flat = x.reshape(height, width * channels)
    across = (width + 3) // 4
    margin = 0 if back else 1  # columns around its own four that a tile reads
    to_tile, to_point = steps
    pixels = rows.reshape(-1, channels)
    for row in range(first, last):
        base = (row - first) * across
        y = 4 * row - above
        lines = (
            flat[y] if 0 <= y < height else nothing,
            flat[y + 1] if y + 1 < height else nothing,
            flat[y + 2] if y + 2 < height else nothing,
            flat[y + 3] if y + 3 < height else nothing,
            flat[y + 4] if y + 4 < height else nothing,
            flat[y + 5] if y + 5 < height else nothing,
        )
        for begin in range(0, across, _RUN):
            end = min(begin + _RUN, across)
            left, right = 4 * begin - margin, 4 * end + margin
            start, stop = max(left, 0) * channels, min(right, width) * channels
            lead = (max(left, 0) - left) * channels
            length = stop - start
            rows[:, :lead] = 0.0
            rows[:, lead + length : (right - left) * channels] = 0.0
            seen, made = _span(lines, start, stop), _span(rows, lead, lead + length)
            if back:
                _return(seen, made)
            else:
                _enter(seen, made)
            for k in range(6):
                for tile in range(begin, end):
                    pixel = _READ * k + 4 * (tile - begin)
                    place = (base + tile) * to_tile + 6 * k * to_point
                    column = _take(pixels, pixel, 1)
                    if back:
                        _return(column, _take(products, place, to_point))
                    else:
                        _enter(column, _take(products, place, to_point))


@njit(**_COMPILED)
def _leave_row(source, y0, y1, y2, y3):
    """Six products of a row to its four columns, A^T of the paper."""
    x0, x1, x2, x3, x4, x5 = source
    for i in range(x0.shape[0]):
        a, b, c = _widen(x0[i]), _widen(x1[i]), _widen(x2[i])
        d, e, f = _widen(x3[i]), _widen(x4[i]), _widen(x5[i])
        p, q, r, s = b + c, b - c, d + e, d - e
        y0[i] = a + p + r
        y1[i] = _A * q + _B * s
        y2[i] = _A2 * p + _B2 * r
        y3[i] = _A3 * q + _B3 * s + f


@njit(**_COMPILED)
def _leave_column(rows, z, bias, out):
    """The same down a column, plus the bias: four rows of `out`."""
    stop = z + bias.shape[0]
    x0, x1, x2 = rows[0, z:stop], rows[1, z:stop], rows[2, z:stop]
    x3, x4, x5 = rows[3, z:stop], rows[4, z:stop], rows[5, z:stop]
    y0, y1, y2, y3 = out[0], out[1], out[2], out[3]
    for i in range(bias.shape[0]):
        a, b, c, d, e, f = x0[i], x1[i], x2[i], x3[i], x4[i], x5[i]
        p, q, r, s, o = b + c, b - c, d + e, d - e, bias[i]
        y0[i] = a + p + r + o
        y1[i] = _A * q + _B * s + o
        y2[i] = _A2 * p + _B2 * r + o
        y3[i] = _A3 * q + _B3 * s + f + o


@njit(**_COMPILED)
def _finish(value, target, slope):
    zero, none = target[0], np.float32(0)
    for i in range(value.shape[0]):
        v = value[i]
        target[i] = _narrow(max(v, none) + slope * min(v, none), zero)


@njit(**_COMPILED)
def _finish_sum(value, target, slope, other):
    zero, none = target[0], np.float32(0)
    for i in range(value.shape[0]):
        v = value[i] + _widen(other[i])
        target[i] = _narrow(max(v, none) + slope * min(v, none), zero)


@njit(**_COMPILED)
def _finish_onto(value, target, slope):
    """As `_finish_sum` of what is there: two names of one array are slow."""
    zero, none = target[0], np.float32(0)
    for i in range(value.shape[0]):
        v = value[i] + _widen(target[i])
        target[i] = _narrow(max(v, none) + slope * min(v, none), zero)


@njit(**_COMPILED)
def _finish_total(value, target, slope, share):
    zero, none = target[0], np.float32(0)
    for i in range(value.shape[0]):
        v = value[i]
        v = max(v, none) + slope * min(v, none)
        target[i] = _narrow(_widen(target[i]) + share * v, zero)


@njit(**_COMPILED)
def leave_strip(products, first, last, bias, slope, share, other, onto, out, rows):
    """What the products of rows `first` to `last` of tiles are in the picture.

    `out`, (h, w, channels), becomes act(x + bias + other), or, where `other` has no
    rows, act(x + bias); or, with `onto`, act(x + bias + out); or, where `share` is not
    zero, out + share * act(x + bias). act is max(v, 0) + slope * min(v, 0). `products`
    are (tiles, 36, channels), `rows` is room, (7, 4 * channels) float32.
    """
    height, width, channels = out.shape
    across = (width + 3) // 4
    column = rows[6].reshape(4, channels)
    for row in range(first, last):
        base = (row - first) * across
        for tile in range(across):
            place = base + tile
            for k in range(6):
                _leave_row(
                    _take(products[place], 6 * k, 1),
                    rows[k, :channels],
                    rows[k, channels : 2 * channels],
                    rows[k, 2 * channels : 3 * channels],
                    rows[k, 3 * channels :],
                )
            for j in range(min(4, width - 4 * tile)):
                _leave_column(rows, j * channels, bias, column)
                x = 4 * tile + j
                for i in range(min(4, height - 4 * row)):
                    y = 4 * row + i
                    if share != 0:
                        _finish_total(column[i], out[y, x], slope, share)
                    elif onto:
                        _finish_onto(column[i], out[y, x], slope)
                    elif other.shape[0]:
                        _finish_sum(column[i], out[y, x], slope, other[y, x])
                    else:
                        _finish(column[i], out[y, x], slope)
