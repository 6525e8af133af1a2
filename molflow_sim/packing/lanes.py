"""Sixteen float32 numbers side by side, for compiled loops that come out the same bit for bit on every processor.

A compiler that may reorder sums to vectorise them does it by the width of the processor's registers, and fuses
multiplications into additions where it can. Here the width is part of the program: LLVM maps it to whatever the
processor has, and every operation is the IEEE one. Used inside numba intrinsics, see `molflow_sim.packing.pair_kernel`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

WIDTH = 16
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_INT, WIDTH)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [ir.Constant(_FLOAT, float(np.float32(value)))] * WIDTH)


class Lanes:
    """A vector in the program that `builder` writes; arithmetic writes the instructions."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    @classmethod
    def filled(cls, builder: Any, scalar: Any) -> Lanes:
        """One float32 number in all lanes."""
        one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), scalar, _INT(0))
        return cls(builder, builder.shuffle_vector(one, one, ir.Constant(_INTS, [0] * WIDTH)))

    @classmethod
    def load(cls, builder: Any, address: Any) -> Lanes:
        """Sixteen consecutive numbers."""
        return cls(builder, builder.load(builder.bitcast(address, _FLOATS.as_pointer()), align=4))

    def store(self, address: Any) -> None:
        """Write them."""
        self.builder.store(self.value, self.builder.bitcast(address, _FLOATS.as_pointer()), align=4)

    def _new(self, value: Any) -> Lanes:
        return Lanes(self.builder, value)

    def _value(self, other: Lanes | float) -> Any:
        return other.value if isinstance(other, Lanes) else _constant(other)

    def __add__(self, other: Lanes | float) -> Lanes:
        return self._new(self.builder.fadd(self.value, self._value(other)))

    def __sub__(self, other: Lanes | float) -> Lanes:
        return self._new(self.builder.fsub(self.value, self._value(other)))

    def __mul__(self, other: Lanes | float) -> Lanes:
        return self._new(self.builder.fmul(self.value, self._value(other)))

    def inverse(self) -> Lanes:
        """1/x."""
        return self._new(self.builder.fdiv(_constant(1.0), self.value))

    def sqrt(self) -> Lanes:
        """Square root."""
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(_FLOATS, [_FLOATS]), f"llvm.sqrt.v{WIDTH}f32"
        )
        return self._new(self.builder.call(function, [self.value]))

    def at_least(self, least: Lanes | float) -> Lanes:
        """The larger of two."""
        least = self._value(least)
        return self._new(self.builder.select(self.builder.fcmp_ordered(">", self.value, least), self.value, least))

    def at_most(self, most: Lanes | float) -> Lanes:
        """The smaller of two."""
        most = self._value(most)
        return self._new(self.builder.select(self.builder.fcmp_ordered("<", self.value, most), self.value, most))

    def exp(self) -> Lanes:
        """exp(x) for x <= 0, relative error 2e-7; underflows to about 1e-38 below -87.

        2^k times a degree-6 polynomial of the remainder (Cody-Waite reduction).
        """
        b = self.builder
        x = self.at_least(-87.0)
        whole = b.fptosi((x * 1.44269504 - 0.5).value, _INTS)
        k = self._new(b.sitofp(whole, _FLOATS))
        y = x - k * 0.693359375 + k * 2.12194440e-4
        p = y * 1.9875691500e-4 + 1.3981999507e-3
        for c in (8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            p = p * y + c
        p = p * y * y + y + 1.0
        shifted = b.shl(b.add(whole, ir.Constant(_INTS, [127] * WIDTH)), ir.Constant(_INTS, [23] * WIDTH))
        return p * self._new(b.bitcast(shifted, _FLOATS))

    def sum(self) -> Any:
        """The sum (float32): halves are added until one number is left."""
        value, size = self.value, WIDTH
        while size > 1:
            size //= 2
            none = ir.Constant(value.type, ir.Undefined)
            half = ir.VectorType(_INT, size)
            low, high = (
                self.builder.shuffle_vector(value, none, ir.Constant(half, list(range(a, a + size)))) for a in (0, size)
            )
            value = self.builder.fadd(low, high)
        return self.builder.extract_element(value, _INT(0))
