"""One gradient step of off-policy MDPO on flat buffers: the updates of autograd, to rounding.

The loss of the actor is that of :func:`orl.mdpo.mirror_descent.soft_mirror_step`. With the noise of an action held
fixed, the density of the actor depends on the action through the squashing and on its own deviation; the density of the
old policy depends on the action alone. :class:`orl.fast.sac_step.SquashedActor` and
:class:`orl.fast.critics.Critics` are the networks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import torch

from orl.common.kernel_cache import drop_stale_kernels
from orl.fast.adam import FlatAdam, adam_ineligible
from orl.fast.critics import Critics, polyak
from orl.fast.features import Features
from orl.fast.flat_parameters import FlatParameters
from orl.fast.mlp import Mlp, extractor_ineligible, hidden_layers, module_ineligible, parameters_of
from orl.fast.sac_step import SquashedActor, joined_heads, sac_ineligible
from orl.fast.squashed_gaussian import HALF_LOG_TWO_PI, LOG_STD_MAX, LOG_STD_MIN, SquashedSample
from orl.fast.transitions import Batch, Transitions
from orl.mdpo.state_value import StateValue

drop_stale_kernels()

Floats = npt.NDArray[np.float32]
FLOOR = np.float32(1e-6)


class Terms(NamedTuple):
    """The constants of the algorithm, as in :class:`orl.mdpo.OffPolicyMDPO`."""

    bregman_coef: float
    ent_coef: float
    tsallis_q: float
    joint: bool
    reg_coef: float
    follow_first: bool

    def logarithm(self, log_probs: Floats) -> tuple[Floats, Floats]:
        """ln_q of each row's density, float32[B], and its derivatives by ``log_probs`` float32[B, P]."""
        if self.tsallis_q == 1.0:
            return log_probs.sum(1), np.ones_like(log_probs)
        r = np.float32(self.tsallis_q - 1.0)
        exponents = r * (log_probs.sum(1, keepdims=True) if self.joint else log_probs)
        values: Floats = (np.expm1(exponents) / r).sum(1)
        return values, np.broadcast_to(np.exp(exponents), log_probs.shape)


@numba.njit(cache=True, error_model="numpy")
def _actor_gradient(actions, spread, inside, mean, log_std, d_new, d_old, pull, d_actions, reg, grad):
    """Gradient by the parameter rows [B, 2P]: ``d_new`` and ``d_old`` by the two log-densities of each component,
    ``pull`` the derivative of the old one by the action before squashing, ``reg`` twice the weight of the squares."""
    one, two = np.float32(1.0), np.float32(2.0)
    width = actions.shape[1]
    for i in range(actions.shape[0]):
        for j in range(width):
            a, new, old = actions[i, j], d_new[i, j], d_old[i, j]
            slope = one - a * a
            through = (d_actions[i, j] + (new + old) * two * a / (slope + FLOOR)) * slope + old * pull[i, j]
            grad[i, j] = through + reg * mean[i, j]
            held = through * spread[i, j] - new + reg * log_std[i, j]
            grad[i, width + j] = held if inside[i, j] else np.float32(0.0)


class _OldPolicy:
    """The old actor; its memory is laid out once, so that loading parameters into it is seen here."""

    def __init__(self, actor: Any) -> None:
        hidden, activation = hidden_layers(actor.latent_pi)
        heads = [actor.mu.weight, actor.log_std.weight, actor.mu.bias, actor.log_std.bias]
        self.flat = FlatParameters([*parameters_of(hidden), *heads])
        self.network = Mlp([*hidden, joined_heads(self.flat, actor.mu, actor.log_std)], activation or "relu")
        self._width = actor.mu.out_features
        for parameter in self.flat.parameters:
            parameter.grad = None  # no gradient reaches it

    def log_probs(self, states: torch.Tensor, sample: SquashedSample) -> tuple[Floats, Floats]:
        """Log-density of each component of the actions, and its derivative by the action before squashing, [B, P]."""
        rows = self.network.predict(states).numpy()
        log_std = np.clip(rows[:, self._width :], LOG_STD_MIN, LOG_STD_MAX)
        gap = sample.unsquashed - rows[:, : self._width]
        pull = gap * np.exp(np.float32(-2.0) * log_std)
        np.negative(pull, out=pull)
        squashing = np.log(np.float32(1.0) - sample.actions * sample.actions + FLOOR)
        return gap * pull * np.float32(0.5) - log_std - HALF_LOG_TWO_PI - squashing, pull


class _StateValues:
    """V and its target."""

    def __init__(self, net: Any, target: Any) -> None:
        self.flat, self.target_flat = (FlatParameters(parameters_of(value_layers(part)[0])) for part in (net, target))
        self.adam = FlatAdam(self.flat, net.optimizer)
        self._network, self._target = (Mlp(*value_layers(part)) for part in (net, target))

    @property
    def intact(self) -> bool:
        return self.adam.in_step and not self.flat.refresh() and self.target_flat.intact

    def target_values(self, states: torch.Tensor) -> Floats:
        values: Floats = self._target.predict(states).numpy()[:, 0]
        return values

    def fit(self, states: torch.Tensor, targets: Floats) -> float:
        """One Adam step on half the mean squared error; returns that loss before the step."""
        error = self._network.forward(states).numpy()[:, 0] - targets
        self._network.backward(torch.from_numpy(error / np.float32(len(error)))[:, None])
        self.adam.step()
        return 0.5 * float(np.mean(error * error))


def value_layers(net: StateValue) -> tuple[list[torch.nn.Linear], Any]:
    """Linear layers and activation of a state-value network.

    Raises:
        ValueError: See :func:`orl.fast.mlp.hidden_layers`.
    """
    below: Any = net.network[:-1]
    last: Any = net.network[-1]
    hidden, activation = hidden_layers(below)
    return [*hidden, last], activation or "relu"


class SoftMirrorEngine:
    """An eligible off-policy MDPO model on flat buffers.

    Args:
        model: For which :func:`soft_mirror_ineligible` is None.

    Attributes:
        actor, critics: The networks.
        transitions: Draws from replay buffers.
    """

    def __init__(self, model: Any) -> None:
        if (reason := soft_mirror_ineligible(model)) is not None:
            raise ValueError(reason)
        policy = model.policy
        self._policy, self._modules = policy, self._modules_of(policy)
        self.actor = SquashedActor(policy.actor)
        self.critics = Critics(policy.critic, policy.critic_target)
        self._old = _OldPolicy(policy.old_actor)
        self._values = _StateValues(policy.value_net, policy.value_net_target) if model.critic_mode == "v" else None
        extractors = getattr(policy.actor.features_extractor, "extractors", None)
        self._features = Features(policy.observation_space, None if extractors is None else list(extractors))
        self.transitions = Transitions(self._features, self.actor.family.width)

    @staticmethod
    def _modules_of(policy: Any) -> list[Any]:
        names = ("actor", "critic", "critic_target", "old_actor", "value_net", "value_net_target")
        return [getattr(policy, name, None) for name in names]

    def intact(self, model: Any) -> bool:
        """Whether this engine still holds the model's memory; otherwise make a new one."""
        policy, values = model.policy, self._values
        return (
            policy is self._policy
            and self._modules_of(policy) == self._modules
            and policy.actor.optimizer is self.actor.adam.optimizer
            and policy.critic.optimizer is self.critics.adam.optimizer
            and (model.critic_mode == "v") == (values is not None)
            and (values is None or (policy.value_net.optimizer is values.adam.optimizer and values.intact))
            and self.actor.intact
            and self.critics.intact
            and self._old.flat.intact
        )

    def act(self, observations: Any) -> Floats:
        """Draw actions in [-1, 1], float32[N, P], for a batch of observations."""
        return self.actor.act(self._features(observations))

    def step(self, batch: Batch, terms: Terms, tau: float | None) -> dict[str, float]:
        """One gradient step.

        Args:
            batch: Drawn by :attr:`transitions`; its action columns may be overwritten.
            terms: Constants of the losses.
            tau: Speed of the targets, None to leave them.

        Returns:
            Losses, and the divergence from the old policy as ``kl_old``.
        """
        sample = self.actor.sample(batch.states, keep=True)
        old_log_probs, pull = self._old.log_probs(batch.states, sample)
        figures = {"kl_old": float((sample.component_log_prob - old_log_probs).sum(1).mean())}
        step = self._step_with_state_values if self._values is not None else self._step_with_target_critics
        figures |= step(batch, terms, sample, old_log_probs, pull)
        if tau is not None:
            if self._values is not None:
                polyak(self._values.flat, self._values.target_flat, tau)
            else:
                self.critics.follow(tau)
        return figures

    def _step_with_state_values(
        self, batch: Batch, terms: Terms, sample: SquashedSample, old_log_probs: Floats, pull: Floats
    ) -> dict[str, float]:
        """Actor first, then Q1, Q2 and V towards targets from the critics as they were before."""
        assert self._values is not None
        stored = batch.actions.copy()
        batch.actions[...] = sample.actions
        networks = self.critics.networks
        q_values = networks.forward(batch.now).numpy()[:, :, 0]
        smallest: Floats = q_values.min(0)
        chosen = np.zeros(len(stored), np.int64) if terms.follow_first else q_values.argmin(0)
        d_out = np.full(len(stored), -1.0 / len(stored), np.float32)
        d_actions: Floats = networks.chosen_input_gradient(chosen, d_out, batch.action_columns).numpy()
        followed = q_values[0].copy() if terms.follow_first else smallest
        actor_loss, ln_new = self._improve_actor(terms, sample, old_log_probs, pull, followed, d_actions)

        batch.actions[...] = stored
        next_values = self._values.target_values(batch.next_states)
        critic_loss = self.critics.fit(batch.now, batch.rewards + batch.discounts * next_values, 0.5)
        value_loss = self._values.fit(batch.states, smallest - np.float32(terms.ent_coef) * ln_new)
        return {"actor_loss": actor_loss, "critic_loss": critic_loss, "value_loss": value_loss}

    def _step_with_target_critics(
        self, batch: Batch, terms: Terms, sample: SquashedSample, old_log_probs: Floats, pull: Floats
    ) -> dict[str, float]:
        """SAC's order: Q1 and Q2 first, then the actor on the new critics."""
        following = self.actor.sample(batch.next_states, keep=False)
        batch.next_actions[...] = following.actions
        ln_following, _ = terms.logarithm(following.component_log_prob)
        next_values = self.critics.target_values(batch.then) - np.float32(terms.ent_coef) * ln_following
        critic_loss = self.critics.fit(batch.now, batch.rewards + batch.discounts * next_values, 0.5)

        batch.actions[...] = sample.actions
        towards = self.critics.first if terms.follow_first else self.critics.smallest
        values, d_actions = towards(batch.now, batch.action_columns)
        actor_loss, _ = self._improve_actor(terms, sample, old_log_probs, pull, values, d_actions)
        return {"actor_loss": actor_loss, "critic_loss": critic_loss}

    def _improve_actor(
        self,
        terms: Terms,
        sample: SquashedSample,
        old_log_probs: Floats,
        pull: Floats,
        q_values: Floats,
        d_actions: Floats,
    ) -> tuple[float, Floats]:
        """One step on the actor; returns its loss before, and ln_q of the density of each row's action."""
        loss, ln_new = self.actor_gradient(terms, sample, old_log_probs, pull, q_values, d_actions)
        self.actor.adam.step()
        return loss, ln_new

    def actor_gradient(
        self,
        terms: Terms,
        sample: SquashedSample,
        old_log_probs: Floats,
        pull: Floats,
        q_values: Floats,
        d_actions: Floats,
    ) -> tuple[float, Floats]:
        """The loss of the actor and ln_q of each row's density; the gradient is written into ``actor.flat.grad``.

        Args:
            terms: Constants of the loss.
            sample: Actions, the last that the actor drew with ``keep``.
            old_log_probs, pull: Log-density of each component under the old policy, and its derivative by the action
                before squashing, float32[B, P].
            q_values: float32[B].
            d_actions: Gradient of ``-mean(q_values)`` by the actions, float32[B, P].
        """
        rows, width = sample.actions.shape
        coef = np.float32(terms.bregman_coef)
        old_coef = np.float32(terms.tsallis_q * (terms.bregman_coef - terms.ent_coef))
        ln_new, slope_new = terms.logarithm(sample.component_log_prob)
        ln_old, slope_old = terms.logarithm(old_log_probs)
        loss = float((coef * ln_new - old_coef * ln_old - q_values).mean())
        if terms.reg_coef:
            loss += terms.reg_coef * float(np.square(sample.mean).mean() + np.square(sample.log_std).mean())
        grad = np.empty((rows, 2 * width), np.float32)
        _actor_gradient(
            sample.actions,
            sample.spread,
            sample.inside,
            sample.mean,
            sample.log_std,
            slope_new * (coef / np.float32(rows)),
            slope_old * (-old_coef / np.float32(rows)),
            pull,
            d_actions,
            np.float32(2.0 * terms.reg_coef / (rows * width)),
            grad,
        )
        self.actor.network.backward(torch.from_numpy(grad))
        return loss, ln_new


def soft_mirror_ineligible(model: Any) -> str | None:
    """Why :class:`SoftMirrorEngine` cannot drive this off-policy MDPO model; None if it can."""
    if (reason := sac_ineligible(model)) is not None or model.critic_mode == "q":
        return reason
    net = model.policy.value_net
    if type(net) is not StateValue or type(model.policy.value_net_target) is not StateValue:
        return f"the state values are a {type(net).__name__}"
    if (reason := extractor_ineligible(net.features_extractor) or module_ineligible(net)) is not None:
        return reason
    try:
        layers, _ = value_layers(net)
    except ValueError as error:
        return str(error)
    return adam_ineligible(net.optimizer, parameters_of(layers))
