"""Counter-based noise: a pure function of (key, t, item, draw).

An episode draws one 64-bit key; inside the episode all randomness is ``f(key, t, item, draw)``. Nothing is stored but
the key and the counters: clones, snapshots and common random numbers are free, K alternative draws are K values of
``draw``, and a batch equals its single envs.

The mixing function is Philox4x32-10 of J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as
easy as 1, 2, 3", SC 2011 (10.1145/2063384.2063405). It passes BigCrush. The counter words are (t, item, draw, 0), each
taken modulo 2^32; the two key words are the halves of ``key``, low half first.

Every function takes integers or integer arrays that broadcast against each other, and returns arrays (or scalars).
:mod:`orl.common.counter_noise_numba` holds the same functions, equal bit for bit, for numba kernels.

>>> float(uniform(np.uint64(7), t=3, item=0, draw=1)) == float(uniform(np.uint64(7), t=3, item=0, draw=1))
True
>>> uniform(np.uint64(7), t=3, item=np.arange(4)).shape
(4,)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = int | npt.NDArray[Any] | np.integer[Any]

_U32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ROUND_0, _ROUND_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_U11 = np.uint64(11)
TWO_TO_MINUS_53 = 2.0**-53


def draw_key(rng: np.random.Generator) -> np.uint64:
    """The 64-bit key of an episode: the one number an env takes from its Generator at reset.

    >>> draw_key(np.random.default_rng(0)).dtype
    dtype('uint64')
    """
    return np.uint64(rng.bit_generator.random_raw())


def philox_block(key: Any, word_0: Any, word_1: Any, word_2: Any, word_3: Any) -> tuple[Any, Any, Any, Any]:
    """Ten rounds of Philox4x32 on uint64 numbers that hold 32-bit words; returns the four output words (uint64).

    Written without branches, so numba compiles the same source for scalars.
    """
    key_0, key_1 = key & _LOW, key >> _U32
    for _ in range(10):
        product_0, product_1 = _ROUND_0 * word_0, _ROUND_1 * word_2
        word_0 = (product_1 >> _U32) ^ word_1 ^ key_0
        word_1 = product_1 & _LOW
        word_2 = (product_0 >> _U32) ^ word_3 ^ key_1
        word_3 = product_0 & _LOW
        key_0, key_1 = (key_0 + _WEYL_0) & _LOW, (key_1 + _WEYL_1) & _LOW
    return word_0, word_1, word_2, word_3


def _word(value: Integers) -> Any:
    """An integer (array) modulo 2^32 as uint64; refuses floats."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"counters are integers, got dtype {array.dtype}")
    return array.astype(np.uint64) & _LOW


def _key(key: Integers) -> Any:
    array = np.asarray(key, dtype=np.uint64) if isinstance(key, int) else np.asarray(key)
    if array.dtype.kind not in "iu":
        raise TypeError(f"the key is a 64-bit unsigned integer, got dtype {array.dtype}")
    return array.astype(np.uint64)


def bits(key: Integers, t: Integers, item: Integers = 0, draw: Integers = 0) -> Any:
    """64 random bits: uint64, in the broadcast shape of the arguments.

    Args:
        key: 64-bit key of the episode (:func:`draw_key`).
        t: Time step or decision epoch.
        item: Which quantity of that step (product, node, copy).
        draw: Which alternative draw; 0 is the one that happens, others are scenarios.
    """
    word_0, word_1, _, _ = philox_block(_key(key), _word(t), _word(item), _word(draw), np.uint64(0))
    return (word_1 << _U32) | word_0


def uniform(key: Integers, t: Integers, item: Integers = 0, draw: Integers = 0) -> Any:
    """Uniform on [0, 1): float64 with 53 random bits; arguments as in :func:`bits`."""
    return (bits(key, t, item, draw) >> _U11).astype(np.float64) * TWO_TO_MINUS_53


def integers(high: Integers, key: Integers, t: Integers, item: Integers = 0, draw: Integers = 0) -> Any:
    """Integers 0..high-1 (int64) for 1 <= high <= 2^32, by multiply and shift; arguments as in :func:`bits`.

    The bias of a value is below ``high * 2^-32`` relative (Lemire 2019, without the rejection step, so that one draw
    costs one block).
    """
    bound = np.asarray(high)
    if bound.dtype.kind not in "iu" or np.any(bound < 1) or np.any(bound > 2**32):
        raise ValueError(f"high must be integers in 1..2**32, got {high!r}")
    word = bits(key, t, item, draw) >> _U32
    return ((word * bound.astype(np.uint64)) >> _U32).astype(np.int64)


def exponential(key: Integers, t: Integers, item: Integers = 0, draw: Integers = 0) -> Any:
    """Exponential with mean 1 by inversion of :func:`uniform`: float64, ``-log(1 - u)``."""
    return -_log(1.0 - uniform(key, t, item, draw))


def normal(key: Integers, t: Integers, item: Integers = 0, draw: Integers = 0) -> Any:
    """Standard normal by inversion of :func:`uniform` (shifted by half a step, so never infinite): float64."""
    return normal_quantile(uniform(key, t, item, draw) + 0.5 * TWO_TO_MINUS_53)


def normal_quantile(probability: npt.ArrayLike) -> Any:
    """Inverse of the standard normal distribution function, relative error about 1e-16; probabilities in (0, 1).

    Algorithm AS 241 (PPND16): M. J. Wichura, Applied Statistics 37 (1988) 477-484. Uses only IEEE operations that round
    correctly (and a logarithm made of them), so numpy and numba agree to the last bit on every machine.
    """
    p = np.asarray(probability, dtype=np.float64)
    q = p - 0.5
    central = np.abs(q) <= 0.425
    r = 0.180625 - q * q
    middle = q * (_horner(A, r) / _horner(B, r))
    tail_p = np.where(central, 0.25, np.where(q < 0.0, p, 1.0 - p))
    s = np.sqrt(-_log(tail_p))
    near = s <= 5.0
    outer = np.where(
        near, _horner(C, s - 1.6) / _horner(D, s - 1.6), _horner(E, np.abs(s - 5.0)) / _horner(F, np.abs(s - 5.0))
    )
    return np.where(central, middle, np.where(q < 0.0, -outer, outer))[()]


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    """Polynomial with the highest power's coefficient first."""
    value = x * 0.0 + coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def _log(x: Any) -> Any:
    """Natural logarithm of positive numbers from exact operations: x = m 2^e, then the odd series of atanh."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < SQRT_HALF
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    exponent = np.where(small, exponent - 1, exponent)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = _horner(ATANH_SERIES, s * s)
    return exponent * LN2_HIGH + (2.0 * s * series + exponent * LN2_LOW)


SQRT_HALF = 0.7071067811865476
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ATANH_SERIES = tuple(1.0 / (2 * k + 1) for k in range(11, -1, -1))

# Coefficients of AS 241, highest power first: centre (A/B), tail up to s = 5 (C/D), far tail (E/F).
A = (
    2509.0809287301226727,
    33430.575583588128105,
    67265.770927008700853,
    45921.953931549871457,
    13731.693765509461125,
    1971.5909503065514427,
    133.14166789178437745,
    3.387132872796366608,
)
B = (
    5226.495278852545925,
    28729.085735721942674,
    39307.89580009271061,
    21213.794301586595867,
    5394.1960214247511077,
    687.1870074920579083,
    42.313330701600911252,
    1.0,
)
C = (
    7.7454501427834140764e-4,
    0.0227238449892691845833,
    0.24178072517745061177,
    1.27045825245236838258,
    3.64784832476320460504,
    5.7694972214606914055,
    4.6303378461565452959,
    1.42343711074968357734,
)
D = (
    1.05075007164441684324e-9,
    5.475938084995344946e-4,
    0.0151986665636164571966,
    0.14810397642748007459,
    0.68976733498510000455,
    1.6763848301838038494,
    2.05319162663775882187,
    1.0,
)
E = (
    2.01033439929228813265e-7,
    2.71155556874348757815e-5,
    0.0012426609473880784386,
    0.026532189526576123093,
    0.29656057182850489123,
    1.7848265399172913358,
    5.4637849111641143699,
    6.6579046435011037772,
)
F = (
    2.04426310338993978564e-15,
    1.4215117583164458887e-7,
    1.8463183175100546818e-5,
    7.868691311456132591e-4,
    0.0148753612908506148525,
    0.13692988092273580531,
    0.59983220655588793769,
    1.0,
)
