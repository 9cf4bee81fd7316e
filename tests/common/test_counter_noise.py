"""Counter-based noise: published test vectors, numpy equals numba, and the statistics of the draws."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from orl.common import counter_noise

# Known-answer tests of Philox4x32-10 published with Random123 (Salmon et al. 2011): counter, key, output.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("counter, key, expected", KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter, key, expected) -> None:
    words = counter_noise.philox_block(np.uint64(key[0] + (key[1] << 32)), *(np.uint64(c) for c in counter))
    assert tuple(int(w) for w in words) == expected


@pytest.fixture(scope="module")
def arguments():
    rng = np.random.default_rng(1)
    n = 4000
    return (
        rng.integers(0, 2**64, n, dtype=np.uint64),
        rng.integers(0, 2**32, n),
        rng.integers(0, 1000, n),
        rng.integers(0, 3, n),
    )


@pytest.mark.parametrize("name", ["bits", "uniform", "exponential", "normal"])
def test_numba_equals_numpy_bit_for_bit(name, arguments) -> None:
    from orl.common import counter_noise_numba

    compiled = getattr(counter_noise_numba, name)
    expected = getattr(counter_noise, name)(*arguments)
    got = np.array([compiled(*row) for row in zip(*arguments, strict=True)], expected.dtype)
    np.testing.assert_array_equal(got, expected)


def test_numba_integers_equal_numpy_ones(arguments) -> None:
    from orl.common import counter_noise_numba

    for high in (1, 7, 2**31, 2**32):
        got = [counter_noise_numba.integers(high, *row) for row in zip(*(a[:300] for a in arguments), strict=True)]
        np.testing.assert_array_equal(got, counter_noise.integers(high, *(a[:300] for a in arguments)))


def test_the_far_tails_agree_with_scipy_and_numba() -> None:
    from orl.common import counter_noise_numba

    p = np.concatenate([10.0 ** -np.arange(1.0, 17), 1 - 10.0 ** -np.arange(1.0, 16), np.linspace(0.001, 0.999, 999)])
    ours = counter_noise.normal_quantile(p)
    np.testing.assert_allclose(ours, stats.norm.ppf(p), rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(ours, [counter_noise_numba.normal_quantile(x) for x in p])


@pytest.mark.parametrize("axis", ["key", "t", "item", "draw"])
def test_every_counter_moves_the_draw_and_the_draws_are_uniform(axis) -> None:
    n = 20_000
    counters = {"key": np.uint64(5), "t": 1, "item": 2, "draw": 3}
    counters[axis] = np.arange(n, dtype=np.uint64)
    u = counter_noise.uniform(**counters)
    assert len(np.unique(u)) == n
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / np.sqrt(n)


def test_half_the_bits_flip_when_one_counter_bit_flips() -> None:
    key, t = np.uint64(99), np.arange(2000)
    base = counter_noise.bits(key, t)
    for changed in (counter_noise.bits(key ^ np.uint64(1), t), counter_noise.bits(key, t, item=1)):
        flipped = np.unpackbits((base ^ changed).view(np.uint8)).mean()
        assert abs(flipped - 0.5) < 0.01


def test_normal_and_exponential_have_their_distributions() -> None:
    t = np.arange(20_000)
    assert stats.kstest(counter_noise.normal(np.uint64(3), t), "norm").pvalue > 1e-3
    assert stats.kstest(counter_noise.exponential(np.uint64(3), t), "expon").pvalue > 1e-3


def test_integers_are_even_over_their_range() -> None:
    draws = counter_noise.integers(6, np.uint64(8), np.arange(30_000))
    assert draws.dtype == np.int64
    assert stats.chisquare(np.bincount(draws, minlength=6)).pvalue > 1e-3


def test_arguments_broadcast_and_are_checked() -> None:
    grid = counter_noise.uniform(np.uint64(1), np.arange(3)[:, None], np.arange(4))
    assert grid.shape == (3, 4)
    assert grid[2, 1] == counter_noise.uniform(np.uint64(1), 2, 1)
    with pytest.raises(TypeError, match="integers"):
        counter_noise.bits(np.uint64(1), 0.5)
    with pytest.raises(ValueError, match="high"):
        counter_noise.integers(0, np.uint64(1), 0)


def test_the_numpy_module_does_not_import_numba() -> None:
    code = "import sys, orl.common.counter_noise; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
