"""The authors' own protocol of PDPPO and of its baseline, kept apart, so that their figures can be had again.

:class:`ReferencePDPPO` trains as the authors' programs do, with every oddity a switch; :func:`reference_config` sets
the switches. Nothing here is a recommendation: use :class:`~orl.pdppo.PDPPO`. What differs from PPO as it is usually
meant, and cannot be told from the paper alone:

- returns are Monte Carlo sums, and the time limit counts as an end (``time_limit="terminal"`` of ``orl/LotSizing-v0``);
- up to six rollouts are trained on at once, five of them old, with the log-probabilities and values of their time;
- the hidden layers of the actor are in no optimiser, so that they stay as they were drawn;
- each machine has a probability ratio and a clipping of its own;
- the actor's last layer is drawn with another gain for PDPPO than for PPO, which matters as stocks up to 100 enter raw;
- advantages are not standardised;
- observations hold stocks alone, without set-ups (``observation="inventory"``).

Sources: Felizardo et al., IJCNN 2025 (arXiv 2504.05150), and what its authors' published programs do.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, preprocess_obs
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv

from orl.common.errors import InputError
from orl.common.post_decision import post_decision_reader
from orl.fast.rollouts import flatten
from orl.pdppo.advantages import episode_ends, gae
from orl.pdppo.rollout import PostDecisionRecord, StepWatch

Rule = Literal["ppo", "positive", "paper_max", "early_min"]
RULES = ("ppo", "positive", "paper_max", "early_min")
POST_RULES = ("paper_max", "early_min")
ACTIVATIONS = ("relu", "tanh")

_FINAL = {
    "n_steps": 400,
    "n_epochs": 40,
    "gamma": 0.9,
    "learning_rate": 5.5e-4,
    "critic_learning_rate": 1e-3,
    "clip_range": 0.2,
    "ent_coef": 0.001,
    "vf_coef": 0.7,
    "kept_rollouts": 6,
    "per_dimension_ratio": True,
    "train_trunk": False,
    "critic_init": "xavier",
}
_EARLY = {
    **_FINAL,
    "n_steps": 4000,
    "n_epochs": 60,
    "gamma": 0.99,
    "ent_coef": 0.012,
    "vf_coef": 0.5,
    "kept_rollouts": 1,
    "normalize_returns": True,
    "critic_init": None,
}
_LAKE = {**_FINAL, "n_steps": 500, "n_epochs": 50, "train_trunk": True, "actor_activation": "tanh"}
_CONFIGS: dict[str, dict[str, dict[str, Any]]] = {
    "final": {
        "pdppo": {**_FINAL, "rule": "paper_max", "actor_init": "relu"},
        "ppo": {**_FINAL, "rule": "ppo", "actor_init": "tanh"},
    },
    "early": {
        "pdppo": {**_EARLY, "rule": "early_min", "actor_init": None, "weight_decay": 1e-3, "max_grad_norm": 1.0},
        "ppo": {**_EARLY, "rule": "ppo", "actor_init": None},
    },
    "lake": {
        "pdppo": {**_LAKE, "rule": "paper_max", "actor_init": "tanh", "init_trunk": True},
        "ppo": {**_LAKE, "rule": "ppo", "actor_init": None, "critic_init": None, "keeps_first_rollout": True},
    },
}


def reference_config(name: str, algorithm: str = "pdppo") -> dict[str, Any]:
    """Keyword arguments of :class:`ReferencePDPPO` for one of the authors' experiments.

    Args:
        name: ``"final"`` (lot-sizing, the published logs), ``"early"`` (an older version of it) or ``"lake"``.
        algorithm: ``"pdppo"``, or ``"ppo"`` as the authors set it up beside it.

    Raises:
        InputError: No such experiment or algorithm.

    >>> reference_config("final")["n_steps"], reference_config("final", "ppo")["actor_init"]
    (400, 'tanh')
    """
    if name not in _CONFIGS:
        raise InputError("unknown experiment", field="name", value=name, expected=f"one of {sorted(_CONFIGS)}")
    if algorithm not in _CONFIGS[name]:
        raise InputError("unknown algorithm", field="algorithm", value=algorithm, expected="'pdppo' or 'ppo'")
    return dict(_CONFIGS[name][algorithm])


class ReferencePolicy(ActorCriticPolicy):
    """Actor, critic and post-decision critic with two hidden layers of 128 each, and one Adam for all three.

    Args:
        observation_space, action_space, lr_schedule: As in SB3; actions Discrete or MultiDiscrete.
        post_decision_space: None: no post-decision critic.
        critic_learning_rate: Of both critics; the schedule is the actor's.
        actor_activation: ``"relu"`` or ``"tanh"``; critics have tanh.
        actor_init: Gain of Kaiming's uniform draw of the last layer of the actor (``init_trunk``: of all its layers):
            ``"relu"``, ``"tanh"``, or None for torch's own draw.
        critic_init: ``"xavier"`` or None.
        train_trunk: Put the hidden layers of the actor into the optimiser.
        weight_decay: Of Adam.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        post_decision_space: spaces.Space[Any] | None = None,
        critic_learning_rate: float = 1e-3,
        actor_activation: str = "relu",
        actor_init: str | None = "relu",
        init_trunk: bool = False,
        critic_init: str | None = "xavier",
        train_trunk: bool = False,
        weight_decay: float = 0.0,
        **further: Any,
    ) -> None:
        self._options = dict(
            post_decision_space=post_decision_space,
            critic_learning_rate=critic_learning_rate,
            actor_activation=actor_activation,
            actor_init=actor_init,
            init_trunk=init_trunk,
            critic_init=critic_init,
            train_trunk=train_trunk,
            weight_decay=weight_decay,
        )
        options = {"net_arch": {"pi": [128, 128], "vf": [128, 128]}, "ortho_init": False, **further}
        super().__init__(observation_space, action_space, lr_schedule, **options)

    def _build(self, lr_schedule: Schedule) -> None:
        o: dict[str, Any] = self._options
        self._build_mlp_extractor()
        if o["actor_activation"] == "relu":
            net = self.mlp_extractor.policy_net
            for i, module in enumerate(net):
                if isinstance(module, torch.nn.Tanh):
                    net[i] = torch.nn.ReLU()
        self.action_net = self.action_dist.proba_distribution_net(  # type: ignore[assignment]
            latent_dim=self.mlp_extractor.latent_dim_pi
        )
        self.value_net = torch.nn.Linear(self.mlp_extractor.latent_dim_vf, 1)
        trunk = self.mlp_extractor.policy_net
        actor: list[torch.nn.Module] = [*([trunk] if o["init_trunk"] else []), self.action_net]
        critics: list[torch.nn.Module] = [self.mlp_extractor.value_net, self.value_net]
        if o["actor_init"] is not None:
            for layer in _linears(actor):
                torch.nn.init.kaiming_uniform_(layer.weight, nonlinearity=o["actor_init"])
                torch.nn.init.zeros_(layer.bias)
        self.post_net: torch.nn.Sequential | None = None  # drawn after the actor, which is then the same without it
        if o["post_decision_space"] is not None:
            width = get_flattened_obs_dim(o["post_decision_space"])
            self.post_net = torch.nn.Sequential(*create_mlp(width, 1, [128, 128], torch.nn.Tanh))
            critics.append(self.post_net)
        if o["critic_init"] == "xavier":
            for layer in _linears(critics):
                torch.nn.init.xavier_uniform_(layer.weight)
                torch.nn.init.zeros_(layer.bias)
        trunk.requires_grad_(o["train_trunk"])
        trained = [self.action_net, *([trunk] if o["train_trunk"] else [])]
        groups = [
            {"params": [p for module in trained for p in module.parameters()], "lr": lr_schedule(1)},
            {"params": [p for module in critics for p in module.parameters()], "lr": o["critic_learning_rate"]},
        ]
        self.optimizer = torch.optim.Adam(groups, weight_decay=o["weight_decay"])

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **self._options}

    def post_values(self, observations: torch.Tensor) -> torch.Tensor:
        """V^x float32[B]; without a critic of its own, the state critic's values."""
        if self.post_net is None:
            return self.predict_values(observations).flatten()
        seen = preprocess_obs(observations, self._options["post_decision_space"])  # type: ignore[arg-type]
        assert isinstance(seen, torch.Tensor)
        return self.post_net(seen.flatten(1)).flatten()

    def factors(self, observations: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of each component of the action, float32[B, M] both."""
        inner: Any = self.get_distribution(observations).distribution
        parts = inner if isinstance(inner, list) else [inner]
        columns = actions.reshape(len(actions), len(parts)).long().unbind(1)
        log_probs = [part.log_prob(column) for part, column in zip(parts, columns, strict=True)]
        return torch.stack(log_probs, 1), torch.stack([part.entropy() for part in parts], 1)


class Block(NamedTuple):
    """A rollout as it is kept, B transitions: all float32, actions [B, M], log-probabilities [B, M], the rest [B]."""

    observations: torch.Tensor
    post_observations: torch.Tensor
    actions: torch.Tensor
    old_log_probs: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    post_returns: torch.Tensor


class ReferencePDPPO(OnPolicyAlgorithm):
    """The authors' training loop for PDPPO, its baseline and ablations of both. Torch only, no masks.

    Args:
        policy, env, learning_rate, ...: As in SB3's PPO. ``env`` has post-decision data for the rules that need them.
        rule: Advantage from Monte Carlo returns: ``"ppo"``: ``G - V``; ``"positive"``: ``max(G - V, 0)``, an ablation
            without any post-decision state; ``"paper_max"``: ``max(G^w - V(s), G^d - V^x(s^x))`` with the returns of
            the stochastic and the deterministic stream; ``"early_min"``: ``G - min(V, V^x)``.
        n_critics: 1: one critic for both in ``"paper_max"``, its sum fitted to the sum of returns.
        learning_rate, critic_learning_rate: Of the actor, and of the critics.
        n_epochs: Passes over all kept transitions at once.
        kept_rollouts: Rollouts trained on at once, old ones included; 1: the last one alone.
        keeps_first_rollout: When the store is full drop all but the first rollout instead of the first one (what the
            authors' PPO does on the lake).
        per_dimension_ratio: A ratio for each component of the action instead of one for the action.
        train_trunk, actor_activation, actor_init, init_trunk, critic_init, weight_decay: See :class:`ReferencePolicy`.
        normalize_returns: Standardise the returns of a rollout.
        normalize_advantage: Standardise the advantages of all kept transitions (an ablation; the authors do not).
        max_grad_norm: None: no clipping.

    Raises:
        InputError: An unknown rule, an action space other than Discrete and MultiDiscrete, or an env without
            post-decision data under a rule that needs them.

    >>> from orl.common.post_decision import FunctionalPostDecision
    >>> import gymnasium
    >>> env = FunctionalPostDecision(gymnasium.make("CartPole-v1"), lambda observation, action: (observation, 1.0))
    >>> config = reference_config("final") | {"n_steps": 32, "n_epochs": 2}
    >>> ReferencePDPPO("MlpPolicy", env, seed=0, device="cpu", **config).learn(64).num_timesteps
    64
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": ReferencePolicy}
    policy: Any

    def __init__(
        self,
        policy: str | type[ReferencePolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 5.5e-4,
        n_steps: int = 400,
        n_epochs: int = 40,
        gamma: float = 0.9,
        clip_range: float = 0.2,
        ent_coef: float = 0.001,
        vf_coef: float = 0.7,
        max_grad_norm: float | None = None,
        rule: Rule = "paper_max",
        n_critics: int = 2,
        critic_learning_rate: float = 1e-3,
        kept_rollouts: int = 6,
        keeps_first_rollout: bool = False,
        per_dimension_ratio: bool = True,
        train_trunk: bool = False,
        actor_activation: str = "relu",
        actor_init: str | None = "relu",
        init_trunk: bool = False,
        critic_init: str | None = "xavier",
        weight_decay: float = 0.0,
        normalize_returns: bool = False,
        normalize_advantage: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        policy_kwargs: dict[str, Any] | None = None,
    ) -> None:
        for field, value, known in (
            ("rule", rule, RULES),
            ("actor_activation", actor_activation, ACTIVATIONS),
            ("actor_init", actor_init, (*ACTIVATIONS, None)),
            ("critic_init", critic_init, ("xavier", None)),
            ("n_critics", n_critics, (1, 2)),
        ):
            if value not in known:
                raise InputError("unknown choice", field=field, value=value, expected=f"one of {known}")
        if kept_rollouts < 1:
            raise InputError("too small", field="kept_rollouts", value=kept_rollouts, expected=">= 1")
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=1.0,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=math.inf if max_grad_norm is None else max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            device=device,
            seed=seed,
            _init_setup_model=False,
            supported_action_spaces=(spaces.Discrete, spaces.MultiDiscrete),
        )
        self.rule, self.n_critics = rule, n_critics
        self.n_epochs, self.clip_range = n_epochs, clip_range
        self.kept_rollouts, self.keeps_first_rollout = kept_rollouts, keeps_first_rollout
        self.per_dimension_ratio = per_dimension_ratio
        self.normalize_returns, self.normalize_advantage = normalize_returns, normalize_advantage
        self._blocks: list[Block] = []
        self._rollouts = 0
        if self.env is not None:
            space = None
            if rule in POST_RULES:
                if not self.env.has_attr("post_decision_space"):
                    raise InputError(
                        f"rule={rule!r} needs post-decision data, and the environment has none",
                        field="env",
                        value=env,
                        expected="an environment with orl.common.protocols.PostDecision, or rule='ppo'",
                    )
                space = self.env.get_attr("post_decision_space")[0]
            self.policy_kwargs = {
                "post_decision_space": None if n_critics == 1 else space,
                "critic_learning_rate": critic_learning_rate,
                "actor_activation": actor_activation,
                "actor_init": actor_init,
                "init_trunk": init_trunk,
                "critic_init": critic_init,
                "train_trunk": train_trunk,
                "weight_decay": weight_decay,
                **self.policy_kwargs,
            }
        if _init_setup_model:
            self._setup_model()

    # ---- rollouts ----------------------------------------------------------------------------------------------
    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        assert self.env is not None
        read = post_decision_reader(self.env) if self.rule in POST_RULES else None
        self._record = PostDecisionRecord(self.n_steps, self.env.num_envs, read)
        self._watch = StepWatch(self.env, self._record)
        return super()._setup_learn(*args, **kwargs)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """SB3's rollout, with post-decision data; ``gamma V`` of time limits is not used."""
        self._record.begin()
        return super().collect_rollouts(self._watch, callback, rollout_buffer, n_rollout_steps)

    def _block(self) -> Block:
        """The last rollout with its returns and advantages."""
        buffer, record = self.rollout_buffer, self._record
        ends = episode_ends(buffer.episode_starts, self._last_episode_starts)  # type: ignore[arg-type]
        values = buffer.values.copy()
        total = self._sums(record.rewards, ends)  # without SB3's bootstrap of time limits
        post_values = post_returns = np.zeros_like(total)
        post: Any = np.zeros((*total.shape, 1), np.float32)
        if self.rule in POST_RULES:
            post = record.post_observations
            with torch.no_grad():
                flat = torch.as_tensor(post.reshape(-1, *post.shape[2:]), device=self.device)
                post_values = self.policy.post_values(flat).cpu().numpy().reshape(total.shape)
        if self.rule == "paper_max":
            returns = self._sums(record.stochastic, ends)
            post_returns = self._sums(record.deterministic, ends)
            advantages = np.maximum(returns - values, post_returns - post_values)
        else:
            returns = post_returns = total
            advantages = returns - (np.minimum(values, post_values) if self.rule == "early_min" else values)
            if self.rule == "positive":
                advantages = np.maximum(advantages, 0.0)
        self._explained = explained_variance(values.ravel(), returns.ravel())
        flatten(buffer)
        observations: Any = buffer.observations
        seen, actions = (torch.as_tensor(array, device=self.device) for array in (observations, buffer.actions))
        with torch.no_grad():
            log_probs, _ = self.policy.factors(seen, actions)
        rest = (post, advantages, returns, post_returns)
        columns = [torch.as_tensor(_flat(array), device=self.device) for array in rest]
        return Block(seen, columns[0], actions, log_probs, columns[1], columns[2], columns[3])

    def _sums(self, rewards: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Discounted sums of rewards to the end of the episode or of the rollout, [T, N]."""
        nothing = np.zeros_like(rewards)
        sums = gae(rewards, nothing, nothing[0], ends, self.gamma, 1.0)
        return (sums - sums.mean()) / (sums.std(ddof=1) + 1e-7) if self.normalize_returns else sums

    # ---- training ----------------------------------------------------------------------------------------------
    def train(self) -> None:
        """``n_epochs`` steps on all kept transitions at once."""
        policy = self.policy
        policy.set_training_mode(True)
        policy.optimizer.param_groups[0]["lr"] = self.lr_schedule(self._current_progress_remaining)
        self._blocks.append(self._block())
        self._rollouts += 1
        data = Block(*(torch.cat(columns) for columns in zip(*self._blocks, strict=True)))
        advantages = data.advantages
        if self.normalize_advantage:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        clip_range = self.clip_range
        for _ in range(self.n_epochs):
            log_probs, entropies = policy.factors(data.observations, data.actions)
            old = data.old_log_probs
            if not self.per_dimension_ratio:
                log_probs, old, entropies = (part.sum(1, keepdim=True) for part in (log_probs, old, entropies))
            ratio = torch.exp(log_probs - old)
            clipped = torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
            weights = advantages[:, None]
            policy_loss = -torch.min(ratio * weights, clipped * weights).mean()
            value_loss = self._value_loss(data)
            loss = policy_loss - self.ent_coef * entropies.mean() + self.vf_coef * value_loss
            policy.optimizer.zero_grad()
            loss.backward()
            if math.isfinite(self.max_grad_norm):
                torch.nn.utils.clip_grad_norm_(policy.parameters(), self.max_grad_norm)
            policy.optimizer.step()
        self._n_updates += self.n_epochs
        if self._rollouts >= self.kept_rollouts:
            self._blocks = self._blocks[:1] if self.keeps_first_rollout else self._blocks[1:]
        record = self.logger.record
        record("train/policy_gradient_loss", policy_loss.item())
        record("train/value_loss", value_loss.item())
        record("train/entropy_loss", -entropies.mean().item())
        record("train/clip_fraction", (torch.abs(ratio - 1) > clip_range).float().mean().item())
        record("train/explained_variance", self._explained)
        record("train/kept_transitions", len(advantages))
        record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _value_loss(self, data: Block) -> torch.Tensor:
        """Losses of the critics of the rule, added up; they share no parameters but in the variant with one critic."""
        values = self.policy.predict_values(data.observations).flatten()
        if self.rule not in POST_RULES:
            return F.mse_loss(values, data.returns)
        post_values = self.policy.post_values(data.post_observations)
        if self.rule == "early_min":
            return F.mse_loss(torch.min(values, post_values), data.returns)
        if self.n_critics == 1:
            return F.mse_loss(values + post_values, data.returns + data.post_returns)
        return F.mse_loss(values, data.returns) + F.mse_loss(post_values, data.post_returns)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "ReferencePDPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        if reset_num_timesteps:
            self._blocks, self._rollouts = [], 0
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_record", "_watch"]


def _linears(modules: list[torch.nn.Module]) -> list[torch.nn.Linear]:
    return [part for module in modules for part in module.modules() if isinstance(part, torch.nn.Linear)]


def _flat(array: np.ndarray) -> np.ndarray:
    """[T, N, ...] in the order of SB3's flattened buffers."""
    return array.swapaxes(0, 1).reshape(-1, *array.shape[2:])
