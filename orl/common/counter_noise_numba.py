"""The functions of :mod:`orl.common.counter_noise` for numba kernels: scalar arguments, equal bit for bit.

Import this module only from code that needs numba anyway. Arguments: ``key`` uint64; ``t``, ``item``, ``draw``
integers.

>>> import numpy as np
>>> from orl.common import counter_noise
>>> float(uniform(np.uint64(7), 3, 0, 1)) == float(counter_noise.uniform(np.uint64(7), 3, 0, 1))
True
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from orl.common import counter_noise as reference

_LOW = np.uint64(0xFFFFFFFF)
_U11 = np.uint64(11)
_U32 = np.uint64(32)
_TWO_TO_MINUS_53 = reference.TWO_TO_MINUS_53
_SQRT_HALF, _LN2_HIGH, _LN2_LOW = reference.SQRT_HALF, reference.LN2_HIGH, reference.LN2_LOW
_SERIES = reference.ATANH_SERIES
_A, _B, _C, _D, _E, _F = (reference.A, reference.B, reference.C, reference.D, reference.E, reference.F)

_block = njit(cache=True, inline="never")(reference.philox_block)


@njit(cache=True)
def bits(key, t, item, draw):
    """64 random bits as uint64."""
    zero = np.uint64(0)
    word_0, word_1, _, _ = _block(
        np.uint64(key), np.uint64(t) & _LOW, np.uint64(item) & _LOW, np.uint64(draw) & _LOW, zero
    )
    return (word_1 << _U32) | word_0


@njit(cache=True)
def uniform(key, t, item, draw):
    """Uniform on [0, 1), float64 with 53 random bits."""
    return np.float64(bits(key, t, item, draw) >> _U11) * _TWO_TO_MINUS_53


@njit(cache=True)
def integers(high, key, t, item, draw):
    """Integer 0..high-1 for 1 <= high <= 2^32 (int64); the range of ``high`` is not checked here."""
    word = bits(key, t, item, draw) >> _U32
    return np.int64((word * np.uint64(high)) >> _U32)


@njit(cache=True)
def exponential(key, t, item, draw):
    """Exponential with mean 1, float64."""
    return -_log(1.0 - uniform(key, t, item, draw))


@njit(cache=True)
def normal(key, t, item, draw):
    """Standard normal, float64."""
    return normal_quantile(uniform(key, t, item, draw) + 0.5 * _TWO_TO_MINUS_53)


@njit(cache=True)
def normal_quantile(p):
    """Inverse of the standard normal distribution function for a probability in (0, 1); AS 241."""
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return q * (_horner(_A, r) / _horner(_B, r))
    s = math.sqrt(-_log(p if q < 0.0 else 1.0 - p))
    if s <= 5.0:
        outer = _horner(_C, s - 1.6) / _horner(_D, s - 1.6)
    else:
        outer = _horner(_E, s - 5.0) / _horner(_F, s - 5.0)
    return -outer if q < 0.0 else outer


@njit(cache=True)
def _horner(coefficients, x):
    value = x * 0.0 + coefficients[0]
    for k in range(1, len(coefficients)):
        value = value * x + coefficients[k]
    return value


@njit(cache=True)
def _log(x):
    mantissa, exponent = math.frexp(x)
    if mantissa < _SQRT_HALF:
        mantissa *= 2.0
        exponent -= 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = _horner(_SERIES, s * s)
    return exponent * _LN2_HIGH + (2.0 * s * series + exponent * _LN2_LOW)
