"""tanh over an array in loops that the compiler vectorises (libm's would not)."""

from __future__ import annotations

from math import factorial
from typing import Any

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

_KEEP = {"contract", "nsz"}  # the rounding below must stay in its order


def _bitcast(source: Any, target: Any) -> Any:
    @intrinsic
    def cast(typingctx: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), codegen

    return cast


_to_bits64, _from_bits64 = _bitcast(types.float64, types.int64), _bitcast(types.int64, types.float64)
_to_bits32, _from_bits32 = _bitcast(types.float32, types.int32), _bitcast(types.int32, types.float32)

_D = [1.0 / factorial(n) for n in range(13)]
D0, D1, D2, D3, D4, D5, D6, D7, D8, D9, D10, D11, D12 = _D
_SHIFT64 = 6755399441055744.0  # 1.5 · 2⁵²: adding it rounds to an integer, kept in the low bits
_HIGH64, _LOW64 = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # ln 2 in two parts (Cody and Waite)
_LOG2E = 1.4426950408889634


@nb.njit(fastmath=_KEEP, error_model="numpy")
def _tanh64(a):
    """1 - 2/(exp(2x) + 1); absolute error below 5e-16."""
    for i in range(len(a)):
        x = 2.0 * min(max(a[i], -20.0), 20.0)
        shifted = x * _LOG2E + _SHIFT64
        k = shifted - _SHIFT64
        y = (x - k * _HIGH64) - k * _LOW64
        y2 = y * y
        y4 = y2 * y2
        low = (D0 + D1 * y) + (D2 + D3 * y) * y2
        middle = (D4 + D5 * y) + (D6 + D7 * y) * y2
        high = (D8 + D9 * y) + (D10 + D11 * y) * y2 + D12 * y4
        p = low + (middle + high * y4) * y4
        e = p * _from_bits64((_to_bits64(shifted) << 52) + (1023 << 52))
        a[i] = 1.0 - 2.0 / (e + 1.0)


_f = np.float32
_S = [_f(x) for x in _D]
S0, S1, S2, S3, S4, S5, S6, S7 = _S[:8]
_SHIFT32, _HIGH32, _LOW32, _LOG2E32 = _f(12582912.0), _f(0.693359375), _f(-2.12194440e-4), _f(_LOG2E)
_ONE, _TWO, _MOST, _LEAST = _f(1.0), _f(2.0), _f(9.0), _f(-9.0)
_BIAS, _PLACES = np.int32(127 << 23), np.int32(23)


@nb.njit(fastmath=_KEEP, error_model="numpy")
def _tanh32(a):
    """The same in single precision; absolute error below 2e-7."""
    for i in range(len(a)):
        x = _TWO * min(max(a[i], _LEAST), _MOST)
        shifted = x * _LOG2E32 + _SHIFT32
        k = shifted - _SHIFT32
        y = (x - k * _HIGH32) - k * _LOW32
        y2 = y * y
        p = (S0 + S1 * y) + (S2 + S3 * y) * y2 + ((S4 + S5 * y) + (S6 + S7 * y) * y2) * (y2 * y2)
        e = p * _from_bits32(np.int32(np.int32(_to_bits32(shifted) << _PLACES) + _BIAS))
        a[i] = _ONE - _TWO / (e + _ONE)


def tanh_in_place(a: np.ndarray) -> None:
    """Replace a flat array, float64 or float32, by its tanh; for compiled code."""
    raise NotImplementedError("only inside compiled functions")


@overload(tanh_in_place)
def _choose(a):  # numba compares the signatures, annotations included
    if a.dtype == types.float32:
        return lambda a: _tanh32(a)
    return lambda a: _tanh64(a)
