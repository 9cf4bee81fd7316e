"""Advantages and value targets of PDPPO as functions of arrays [T, N]: T steps of N copies, in time order.

A step of a post-decision env goes ``s -- action --> (r^d, s^x) -- noise --> (r^w, s')``. With the values ``V(s)`` and
``V^x(s^x)`` at the truth,

    V(s) = E_a[r^d + V^x(s^x)],    V^x(s^x) = E_w[r^w + gamma V(s')],

so an ordinary temporal difference falls into two, that of the decision and that of the noise:

    delta^d = r^d + V^x(s^x) - V(s),    delta^w = r^w + gamma V(s') - V^x(s^x),    delta^d + delta^w = delta.

Arrays are of one float dtype, float32 in training and float64 in studies of the estimators; results have it too.
``ends`` bool[T, N] marks the last step of an episode, of either kind; a time limit's bootstrap ``gamma V(s')`` is part
of that step's reward and of its stochastic share already, as in Stable-Baselines3.

Sources: generalised advantages from Schulman et al., arXiv 1506.02438; post-decision states from W. B. Powell,
*Approximate Dynamic Programming*, 2nd edition, Wiley 2011, section 4.6; ``paper_max`` and ``early_min`` from Felizardo
et al., IJCNN 2025 (arXiv 2504.05150) and its authors' programs; ``interleaved`` and the averages over further draws are
this project's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numba
import numpy as np
import numpy.typing as npt

from orl.common.kernel_cache import drop_stale_kernels

drop_stale_kernels()

Mode = Literal["pre", "paper_max", "max_full", "interleaved", "early_min"]
MODES = ("pre", "paper_max", "max_full", "interleaved", "early_min")
Floats = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]


@numba.njit(cache=True, error_model="numpy")
def _interleaved(rewards, decisions, values, last_values, ends, gamma, decay, weight, one, out):
    steps, copies = rewards.shape
    zero = one - one
    for i in range(copies):
        running = zero
        for t in range(steps - 1, -1, -1):
            alive = zero if ends[t, i] else one
            following = last_values[i] if t == steps - 1 else values[t + 1, i]
            delta = rewards[t, i] + gamma * following * alive - values[t, i]
            running = delta + decay * alive * running
            if weight != one:
                running = (one - weight) * decisions[t, i] + weight * running
            out[t, i] = running


@numba.njit(cache=True, error_model="numpy")
def _decision_stream(rewards, post_values, ends, cut, gamma, decay, one, out):
    steps, copies = rewards.shape
    zero = one - one
    for i in range(copies):
        running = zero
        for t in range(steps - 1, -1, -1):
            if cut[t, i]:
                running = zero
            else:
                delta = rewards[t, i] - post_values[t, i]
                if not ends[t, i]:
                    delta += gamma * post_values[t + 1, i]
                    delta += decay * running
                running = delta
            out[t, i] = running


def episode_ends(episode_starts: Floats, dones: npt.NDArray[Any]) -> Flags:
    """bool[T, N] from SB3's ``episode_starts`` [T, N] and the ``dones`` [N] of the last step."""
    return np.concatenate([episode_starts[1:] != 0, np.asarray(dones, np.bool_)[None]])


def gae(rewards: Floats, values: Floats, last_values: Floats, ends: Flags, gamma: float, gae_lambda: float) -> Floats:
    """Generalised advantages ``A_t = delta_t + gamma lambda A_{t+1}``, bit for bit those of SB3 in float32.

    Args:
        rewards, values: [T, N].
        last_values: [N], V of the state after the last step.
        ends: bool[T, N].

    >>> one_step = np.array([[1.0]])
    >>> gae(one_step, np.array([[0.5]]), np.array([2.0]), np.array([[False]]), 0.9, 0.95).tolist()
    [[2.3]]
    """
    return interleaved(rewards, values, values, last_values, ends, gamma, gae_lambda, 1.0)


def interleaved(
    rewards: Floats,
    decisions: Floats,
    values: Floats,
    last_values: Floats,
    ends: Flags,
    gamma: float,
    gae_lambda: float,
    stochastic_lambda: float,
) -> Floats:
    """``A_t = delta^d_t + lx (delta^w_t + gamma lambda A_{t+1})`` with ``lx = stochastic_lambda``.

    Computed as ``(1 - lx) delta^d_t + lx (delta_t + gamma lambda A_{t+1})``, the same by ``delta^d + delta^w = delta``:
    so ``lx = 1``, where V^x cancels, gives :func:`gae` to the last bit, whatever V^x is.

    Args:
        decisions: [T, N], delta^d of :func:`decision_advantages`.
        stochastic_lambda: lx in [0, 1]; 0 trusts V^x and sees no noise at all.
    """
    kind = rewards.dtype.type
    out = np.empty_like(rewards)
    _interleaved(
        rewards,
        decisions,
        values,
        np.asarray(last_values, rewards.dtype),
        ends,
        kind(gamma),
        kind(gamma * gae_lambda),
        kind(stochastic_lambda),
        kind(1),
        out,
    )
    return out


def decision_advantages(deterministic: Floats, values: Floats, post_values: Floats) -> Floats:
    """``delta^d = r^d + V^x(s^x) - V(s)``, [T, N]: what the decision alone was worth."""
    return deterministic + post_values - values


def decision_stream_advantages(
    deterministic: Floats, post_values: Floats, ends: Flags, cut: Flags, gamma: float, gae_lambda: float
) -> Floats:
    """Generalised advantages of the stream of deterministic rewards alone, against V^x(s^x_t) (``paper_max``).

    V^x here predicts ``sum_k gamma^k r^d_{t+k}`` from s^x_t. Where the stream is cut without an end (time limit, end of
    the rollout) the next post-decision state is not known, as its action was not chosen; there the sum is taken to be
    V^x(s^x_t) itself, so that step's advantage is zero.

    Args:
        cut: bool[T, N].
    """
    kind = deterministic.dtype.type
    out = np.empty_like(deterministic)
    cut = cut.copy()
    cut[-1] |= ~ends[-1]
    _decision_stream(deterministic, post_values, ends, cut, kind(gamma), kind(gamma * gae_lambda), kind(1), out)
    return out


def post_targets(stochastic: Floats, returns: Floats, last_values: Floats, ends: Flags, gamma: float) -> Floats:
    """``R^x_t = r^w_t + gamma R_{t+1}``, with V of the state after the last step and nothing after an end, [T, N]."""
    following = np.concatenate([returns[1:], np.asarray(last_values, returns.dtype)[None]])
    return stochastic + returns.dtype.type(gamma) * np.where(ends, returns.dtype.type(0), following)


def draw_correction(
    stochastic: Floats,
    values: Floats,
    last_values: Floats,
    ends: Flags,
    gamma: float,
    other_draws: npt.NDArray[np.float64],
    n_draws: int,
) -> Floats:
    """What turns one draw of the noise into the mean of K draws, to be added to ``r^w`` (and to r).

    With ``y_k = r^w_k + gamma V(s'_k)`` of draw k from the same post-decision state and draw 0 the one that happened,
    it is ``c_t = mean_{0 <= k < K} y_k - y_0``. Then ``delta^w`` becomes ``mean_k y_k - V^x``, while the advantages of
    later steps remain those of the path that happened:

        A_t = delta^d_t + lx (mean_k delta^w_{t,k} + gamma lambda A_{t+1}).

    Its expectation given the post-decision state is zero, whatever V is, so no estimator gains a bias by it.

    Args:
        other_draws: float64[T, N], sum of y_k over the draws 1..K-1; a draw that terminates counts no V.
        n_draws: K, at least 1.
    """
    following = np.concatenate([values[1:], np.asarray(last_values, values.dtype)[None]]).astype(np.float64)
    happened = stochastic + gamma * np.where(ends, 0.0, following)
    return ((other_draws - (n_draws - 1) * happened) / n_draws).astype(stochastic.dtype)


# ---- one rollout, all modes ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rollout:
    """What an estimate is made of.

    Attributes:
        rewards: [T, N], with the bootstrap of time limits.
        deterministic, stochastic: [T, N], its two shares; the stochastic one holds the bootstrap.
        values, post_values: [T, N], V(s) and V^x(s^x) of the networks that acted.
        last_values: [N].
        ends: bool[T, N], last steps of episodes.
        truncated: bool[T, N], those that a time limit ended.
        other_draws: float64[T, N], see :func:`draw_correction`; None: one draw.
        n_draws: K.
        bootstrap: [T, N], the bootstrap of time limits alone.
    """

    rewards: Floats
    deterministic: Floats
    stochastic: Floats
    values: Floats
    post_values: Floats
    last_values: Floats
    ends: Flags
    truncated: Flags
    bootstrap: Floats
    other_draws: npt.NDArray[np.float64] | None = None
    n_draws: int = 1


@dataclass(frozen=True)
class Estimate:
    """Advantages, and what the two critics are fitted to, [T, N] each.

    Attributes:
        advantages: Of the actions, not standardised.
        returns: Target of V(s).
        post_returns: Target of V^x(s^x).
        plain: Advantages of the state critic alone.
        decisions: Advantages of the post-decision critic alone: delta^d, or those of its own stream.
        statistics: Mean and deviation that the returns were standardised with (``early_min``), else (0, 1).
    """

    advantages: Floats
    returns: Floats
    post_returns: Floats
    plain: Floats
    decisions: Floats
    statistics: tuple[float, float] = (0.0, 1.0)


def estimate(
    mode: Mode,
    rollout: Rollout,
    gamma: float,
    gae_lambda: float,
    gae_lambda_post: float,
    stochastic_lambda: float = 1.0,
    statistics: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """Advantages and targets of one rollout in a mode with two critics.

    With ``r``, ``r^w`` standing for the rewards after :func:`draw_correction` where there are several draws:

    ============= ============================================== ====================== =========================
    mode          advantage                                      target of V            target of V^x
    ============= ============================================== ====================== =========================
    interleaved   delta^d + lx (delta^w + gamma lambda A')       R = gae(r, V) + V      R^x = r^w + gamma R'
    max_full      max(gae(r, V), delta^d)                        the same               the same
    paper_max     max(A^w, A^d), A^w = gae(r^w, V),              A^w + V                A^d + V^x
                  A^d = gae(r^d, V^x)
    early_min     G - min(V, V^x), G = standardised              G                      G
                  ``sum_k gamma^k r_{t+k}``
    ============= ============================================== ====================== =========================

    In ``early_min`` the critics predict standardised returns; what a cut rollout is worth is taken back to the scale of
    rewards with the mean and deviation of the rollout before, ``statistics``.
    """
    if rollout.other_draws is not None:
        rollout = _averaged(rollout, gamma, statistics if mode == "early_min" else (0.0, 1.0))
    values, post_values, last_values = rollout.values, rollout.post_values, rollout.last_values
    if mode == "early_min":
        return _early_min(rollout, gamma, statistics)
    if mode == "paper_max":
        plain = gae(rollout.stochastic, values, last_values, rollout.ends, gamma, gae_lambda)
        decisions = decision_stream_advantages(
            rollout.deterministic, post_values, rollout.ends, rollout.truncated, gamma, gae_lambda_post
        )
        return Estimate(np.maximum(plain, decisions), plain + values, decisions + post_values, plain, decisions)
    plain = gae(rollout.rewards, values, last_values, rollout.ends, gamma, gae_lambda)
    decisions = decision_advantages(rollout.deterministic, values, post_values)
    if mode == "max_full":
        advantages = np.maximum(plain, decisions)
    else:
        advantages = interleaved(
            rollout.rewards, decisions, values, last_values, rollout.ends, gamma, gae_lambda, stochastic_lambda
        )
    returns = plain + values
    return Estimate(
        advantages,
        returns,
        post_targets(rollout.stochastic, returns, last_values, rollout.ends, gamma),
        plain,
        decisions,
    )


def _averaged(rollout: Rollout, gamma: float, statistics: tuple[float, float]) -> Rollout:
    """The rollout with rewards that stand for the mean of the draws."""
    assert rollout.other_draws is not None
    mean, deviation = statistics
    scaled = (mean, deviation) != (0.0, 1.0)
    stochastic = rollout.stochastic
    if scaled:
        stochastic = stochastic + _rescaled_bootstrap(rollout, gamma, statistics) - rollout.bootstrap
    correction = draw_correction(
        stochastic,
        rollout.values * deviation + mean if scaled else rollout.values,
        rollout.last_values * deviation + mean if scaled else rollout.last_values,
        rollout.ends,
        gamma,
        rollout.other_draws,
        rollout.n_draws,
    )
    return replace(
        rollout,
        rewards=rollout.rewards + correction,
        stochastic=rollout.stochastic + correction,
        other_draws=None,
    )


def _rescaled_bootstrap(rollout: Rollout, gamma: float, statistics: tuple[float, float]) -> Floats:
    """``gamma V`` of time limits for critics that predict standardised returns."""
    mean, deviation = statistics
    scaled = rollout.bootstrap * deviation + gamma * mean
    return np.where(rollout.truncated, scaled, 0.0).astype(rollout.bootstrap.dtype)


def _early_min(rollout: Rollout, gamma: float, statistics: tuple[float, float]) -> Estimate:
    mean, deviation = statistics
    rewards = rollout.rewards - rollout.bootstrap + _rescaled_bootstrap(rollout, gamma, statistics)
    last = (rollout.last_values * deviation + mean).astype(rewards.dtype)
    returns = gae(rewards, np.zeros_like(rewards), last, rollout.ends, gamma, 1.0)
    now = float(returns.mean()), float(returns.std(ddof=1)) + 1e-7
    returns = ((returns - now[0]) / now[1]).astype(rewards.dtype)
    plain, decisions = returns - rollout.values, returns - rollout.post_values
    return Estimate(np.maximum(plain, decisions), returns, returns, plain, decisions, now)
