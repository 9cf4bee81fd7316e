"""PDPPO's update on autograd, in the order of ``PPO.train`` of Stable-Baselines3: for any policy and any device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.utils import obs_as_tensor

from orl.fast.ppo import record_training
from orl.fast.rollouts import flatten
from orl.pdppo.rollout import PostDecisionRecord


def train_on_autograd(model: Any, record: PostDecisionRecord, clip_range_vf: float | None) -> list[float]:
    """One update of policy, state critic and post-decision critic on the rollout that was collected last.

    Policy and state critic take the steps of SB3's PPO (and MaskablePPO) to the last bit; the post-decision critic
    takes its step on the same minibatch. With one critic for both, the value loss is that of ``V(s) + V(s^x)``.

    Returns:
        Loss of the post-decision critic on every minibatch (none with one critic for both, or without weight).
    """
    policy, buffer, post_critic = model.policy, model.rollout_buffer, model.post_critic
    policy.set_training_mode(True)
    model._update_learning_rate(policy.optimizer)
    clip_range = model.clip_range(model._current_progress_remaining)
    flatten(buffer)
    post_observations = record.flat(record.post_observations)
    post_returns, post_values = (
        torch.as_tensor(record.flat(array), device=model.device) for array in (record.post_returns, record.post_values)
    )
    if post_critic is not None:
        post_critic.set_training_mode(True)
    total = buffer.buffer_size * buffer.n_envs
    figures: list[list[float]] = []
    post_losses: list[float] = []
    epoch_start, going_on = 0, True
    for epoch in range(model.n_epochs):
        order = np.random.permutation(total)  # noqa: NPY002 - SB3's own random stream
        epoch_start = len(figures)
        for first in range(0, total, model.batch_size):
            chosen = order[first : first + model.batch_size]
            data = buffer._get_samples(chosen)
            rows = torch.as_tensor(chosen, device=model.device)
            observations = obs_as_tensor(_rows(post_observations, chosen), model.device)
            values, log_prob, entropy = _evaluate(model, data)
            returns, old_values = data.returns, data.old_values
            if post_critic is None:
                values = values + policy.predict_values(observations).flatten()
                returns, old_values = returns + post_returns[rows], old_values + post_values[rows]

            advantages = data.advantages
            if model.normalize_advantage and len(advantages) > 1:
                advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            ratio = torch.exp(log_prob - data.old_log_prob)
            clipped = torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
            policy_loss = -torch.min(advantages * ratio, advantages * clipped).mean()
            value_loss = _value_loss(values, old_values, returns, clip_range_vf)
            entropy_loss = -torch.mean(-log_prob if entropy is None else entropy)
            loss = policy_loss + model.ent_coef * entropy_loss + model.vf_coef * value_loss
            with torch.no_grad():
                log_ratio = log_prob - data.old_log_prob
                kl = torch.mean((torch.exp(log_ratio) - 1) - log_ratio).item()
                clip_fraction = torch.mean((torch.abs(ratio - 1) > clip_range).float()).item()
            figures.append([policy_loss.item(), value_loss.item(), entropy_loss.item(), loss.item(), kl, clip_fraction])
            if model.target_kl is not None and kl > 1.5 * model.target_kl:
                going_on = False
                if model.verbose >= 1:
                    print(f"Early stopping at step {epoch} due to reaching max kl: {kl:.2f}")
                break
            _descend(policy, loss, model.max_grad_norm)
            if post_critic is not None and model.post_vf_coef != 0.0:
                post_loss = _value_loss(post_critic(observations), post_values[rows], post_returns[rows], clip_range_vf)
                _descend(post_critic, model.post_vf_coef * post_loss, model.max_grad_norm)
                post_losses.append(post_loss.item())
        model._n_updates += 1
        if not going_on:
            break
    if post_critic is not None:
        post_critic.set_training_mode(False)
    record_training(model, np.array(figures), epoch_start, clip_range, clip_range_vf)
    return post_losses


def _evaluate(model: Any, data: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Values, log-probabilities and entropies of a minibatch, float32[B] each."""
    actions = data.actions
    if isinstance(model.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    masks = {"action_masks": data.action_masks} if hasattr(data, "action_masks") else {}
    values, log_prob, entropy = model.policy.evaluate_actions(data.observations, actions, **masks)
    return values.flatten(), log_prob, entropy


def _value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, clip_range: float | None
) -> torch.Tensor:
    if clip_range is not None:
        values = old_values + torch.clamp(values - old_values, -clip_range, clip_range)
    return F.mse_loss(returns, values)


def _descend(module: Any, loss: torch.Tensor, max_grad_norm: float) -> None:
    """One step of the module's own optimiser."""
    module.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), max_grad_norm)
    module.optimizer.step()


def _rows(observations: Any, chosen: Any) -> Any:
    if isinstance(observations, dict):
        return {key: part[chosen] for key, part in observations.items()}
    return observations[chosen]
