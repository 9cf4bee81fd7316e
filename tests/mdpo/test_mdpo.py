"""On-policy MDPO: schedule, phases, spaces, masks, persistence, and the two engines."""

from __future__ import annotations

import copy
import io
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import orl
from orl.common.errors import InputError
from orl.mdpo import MDPO
from orl.policies.set_policy import SetPolicy

ENGINES = ("torch", "fast")


class Toy(gymnasium.Env):
    """Deterministic env over any action space: the observation turns with the action, episodes last 7 steps."""

    def __init__(self, action_space: spaces.Space[Any], observation_space: spaces.Space[Any] | None = None) -> None:
        self.action_space = action_space
        self.observation_space = observation_space or spaces.Box(-1, 1, (3,), np.float32)
        self.steps, self.angle = 0, 0.0

    def _observe(self):
        row = np.array([np.sin(self.angle), np.cos(self.angle), self.steps / 7], np.float32)
        if isinstance(self.observation_space, spaces.Dict):
            return {"angle": row[:2], "time": row[2:]}
        return row

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.angle = 0, 0.5
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        self.angle += 0.3 * float(np.sum(action))
        return self._observe(), float(np.cos(self.angle)), False, self.steps == 7, {}


SPACES = {
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
    "box": spaces.Box(-1, 1, (2,), np.float32),
}
MASK_WIDTHS = {"discrete": 3, "multi-discrete": 5, "multi-binary": 6}


def masked(name: str) -> gymnasium.Env:
    """The toy env, in which the second option of the first component is never legal."""
    mask = np.ones(MASK_WIDTHS[name], bool)
    mask[1] = False
    return ActionMasker(Toy(SPACES[name]), lambda _: mask)


def make(env: Any, **options: Any) -> MDPO:
    arguments = {"n_steps": 28, "vf_batch_size": 8, "learning_rate": 3e-3, "seed": 0, "device": "cpu"}
    return MDPO("MlpPolicy", env, **{**arguments, **options})


def parameters(model: MDPO) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()])


# ---- step size -----------------------------------------------------------------------------------------------------
class StepSizes(BaseCallback):
    """Reads the step size of every iteration, when its rollout ends."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert isinstance(self.model, MDPO)
        self.seen.append(self.model.mirror_step_size())


def test_linear_step_size_falls_as_in_the_authors_code_and_never_reaches_zero() -> None:
    steps = StepSizes()
    make(Toy(SPACES["discrete"])).learn(280, callback=steps)
    np.testing.assert_allclose(steps.seen, np.arange(11, 1, -1) / 10)


class StopAfter(BaseCallback):
    """Ends the training when that many steps are done."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def _on_step(self) -> bool:
        return self.num_timesteps < self.steps


def test_step_size_of_a_stopped_and_loaded_run_is_that_of_the_whole_run(tmp_path) -> None:
    whole, first, second = StepSizes(), StepSizes(), StepSizes()
    make(Toy(SPACES["discrete"])).learn(280, callback=whole)
    model = make(Toy(SPACES["discrete"]))
    model.learn(280, callback=[first, StopAfter(141)])
    assert model.num_timesteps == 141  # one step into the sixth rollout
    model.save(tmp_path / "model")
    again = MDPO.load(tmp_path / "model", env=Toy(SPACES["discrete"]))
    again.learn(139, callback=second, reset_num_timesteps=False)
    np.testing.assert_allclose([*first.seen, *second.seen], whole.seen, atol=1.01 / 280)


def test_step_size_stays_positive_when_the_last_rollout_overshoots_the_total() -> None:
    for offset in (0, 1, 2):
        steps = StepSizes()
        make(Toy(SPACES["discrete"]), schedule_offset=offset).learn(100, callback=steps)
        assert len(steps.seen) == 4
        assert min(steps.seen) >= 1 / 3


def test_step_size_may_be_a_number_or_a_function_of_the_progress() -> None:
    constant, halved = StepSizes(), StepSizes()
    make(Toy(SPACES["discrete"]), step_size=0.05).learn(56, callback=constant)
    make(Toy(SPACES["discrete"]), step_size=lambda progress: progress / 2).learn(56, callback=halved)
    assert constant.seen == [0.05, 0.05]
    np.testing.assert_allclose(halved.seen, [0.75, 0.5])
    with pytest.raises(ValueError, match="positive"):
        make(Toy(SPACES["discrete"]), step_size=lambda progress: progress - 1.5).learn(56)


# ---- phases of an iteration ----------------------------------------------------------------------------------------
class Counting(torch.optim.Adam):
    """Adam that counts its steps."""

    steps = 0

    def step(self, closure=None):
        self.steps += 1
        return super().step(closure)


def test_an_iteration_makes_exactly_the_stated_numbers_of_optimiser_steps() -> None:
    model = make(Toy(SPACES["box"]), n_policy_steps=7, vf_epochs=3, policy_kwargs={"optimizer_class": Counting})
    model.learn(28)
    assert model.policy.optimizer.steps == 7
    assert model.policy.value_optimizer.steps == 3 * (28 // 8)
    assert model._n_updates == 7


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("space", ["box", "discrete"])
def test_policy_and_value_function_do_not_touch_each_other(engine: str, space: str) -> None:
    def learn(**options: Any) -> dict[str, torch.Tensor]:
        model = make(Toy(SPACES[space]), engine=engine, **options)
        before = {name: p.detach().clone() for name, p in model.policy.named_parameters()}
        model.learn(28)
        return {name: p.detach() - before[name] for name, p in model.policy.named_parameters()}

    def is_value(name: str) -> bool:
        return "value_net" in name

    moved = learn(vf_epochs=0)
    assert all(bool(change.any()) != is_value(name) for name, change in moved.items())
    moved = learn(learning_rate=0.0)
    assert all(bool(change.any()) == is_value(name) for name, change in moved.items())


def test_value_steps_leave_a_shared_features_extractor_alone() -> None:
    space = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    env = gymnasium.wrappers.TransformObservation(
        Toy(SPACES["discrete"]), lambda row: np.full((3, 36, 36), 100 + 50 * row[0], np.uint8), space
    )
    model = MDPO("CnnPolicy", env, n_steps=16, vf_batch_size=8, learning_rate=0.0, seed=0, device="cpu")
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(16)
    after = model.policy.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"value_net.weight", "value_net.bias"}
    model = MDPO("CnnPolicy", env, n_steps=16, vf_batch_size=8, vf_epochs=0, seed=0, device="cpu").learn(16)
    assert not torch.equal(
        before["features_extractor.linear.0.weight"], model.policy.state_dict()["features_extractor.linear.0.weight"]
    )


def test_set_policy_and_unshared_extractors_learn() -> None:
    observation, action = spaces.Box(-np.inf, np.inf, (18,), np.float32), spaces.Discrete(7)
    env = gymnasium.wrappers.TransformObservation(
        ActionMasker(Toy(action), lambda _: np.arange(7) > 1), lambda row: np.tile(row, 6), observation
    )
    model = MDPO(SetPolicy, env, n_steps=28, vf_batch_size=8, seed=0, device="cpu")
    before = parameters(model)
    assert bool((parameters(model.learn(28)) != before).float().mean() > 0.5)
    model = make(Toy(SPACES["box"]), policy_kwargs={"share_features_extractor": False}).learn(28)
    assert model.engine_in_use == "fast"


# ---- mirror steps of the class -------------------------------------------------------------------------------------
class Chain(gymnasium.Env):
    """Five states in a row, left and right; the reward of 1 is at the right end. Only its spaces are used here."""

    observation_space, action_space = spaces.Box(0, 1, (5,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.eye(5, dtype=np.float32)[0], {}


def chain_q(policy: np.ndarray, gamma: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Exact Q float[5, 2] and V float[5] of a policy float[5, 2] on the chain."""
    following = np.stack([np.maximum(np.arange(5) - 1, 0), np.minimum(np.arange(5) + 1, 4)], 1)
    rewards = (following == 4).astype(float)
    transition = np.zeros((5, 5))
    for s in range(5):
        for a in range(2):
            transition[s, following[s, a]] += policy[s, a]
    values = np.linalg.solve(np.eye(5) - gamma * transition, (policy * rewards).sum(1))
    return rewards + gamma * values[following], values


@pytest.mark.parametrize("engine", ENGINES)
def test_on_a_tabular_problem_the_class_follows_exact_mirror_descent(engine: str) -> None:
    t = 0.5
    model = MDPO(
        "MlpPolicy",
        Chain(),
        n_steps=10,
        n_policy_steps=120,
        step_size=t,
        learning_rate=0.1,
        vf_epochs=0,
        vf_batch_size=10,
        normalize_advantage=False,
        max_grad_norm=1e9,
        policy_kwargs={"net_arch": [], "ortho_init": False},
        seed=0,
        device="cpu",
        engine=engine,
    )
    model._setup_learn(50)
    states, actions = np.repeat(np.arange(5), 2), np.tile(np.arange(2), 5)
    observations = torch.eye(5)

    def current() -> np.ndarray:
        with torch.no_grad():
            return model.policy.get_distribution(observations).distribution.probs.numpy().astype(float)

    exact = current()
    for _ in range(5):
        q, _ = chain_q(exact)
        exact = exact * np.exp(t * q)
        exact /= exact.sum(1, keepdims=True)

        policy = current()
        q, values = chain_q(policy)
        buffer = model.rollout_buffer
        buffer.reset()
        buffer.observations[:, 0], buffer.actions[:, 0, 0] = np.eye(5)[states], actions
        # Rows are all (state, action) pairs, not samples: a weight of 2 pi(a|s) makes their mean that over pi.
        advantages = 2 * policy[states, actions] * (q - values[:, None])[states, actions]
        buffer.advantages[:, 0], buffer.full = advantages, True
        model.train()
        assert 0.5 * np.abs(current() - exact).sum(1).max() < 0.02
    for _ in range(200):
        q, _ = chain_q(exact)
        exact = exact * np.exp(t * q - t * q.max(1, keepdims=True))
        exact /= exact.sum(1, keepdims=True)
    assert exact[:, 1].min() > 0.99  # always to the right


def normal_of(policy: Any, observations: torch.Tensor) -> torch.distributions.Normal:
    """Action distribution of a Gaussian policy in double precision (SB3's own way there casts to single)."""
    mean = policy.action_net(policy.mlp_extractor.forward_actor(observations))
    return torch.distributions.Normal(mean, policy.log_std.exp())


def double_copy(model: MDPO) -> Any:
    policy = ActorCriticPolicy(model.observation_space, model.action_space, lambda _: 0.0)
    policy.load_state_dict(model.policy.state_dict())
    return policy.double()


@pytest.mark.parametrize("engine", ENGINES)
def test_gradient_of_a_policy_step_agrees_with_finite_differences(engine: str) -> None:
    """At the second step of an iteration, where the policy has left the old one and the KL term has a gradient."""
    model = make(Toy(SPACES["box"]), n_policy_steps=2, vf_epochs=0, learning_rate=0.05, engine=engine, ent_coef=0.02)
    model.max_grad_norm = 1e9
    model._setup_learn(28)
    callback = model._init_callback(None)
    assert model.collect_rollouts(model.get_env(), callback, model.rollout_buffer, 28)
    old, places, grads = double_copy(model), [], []
    fast = model.fast_engine()
    stepper = model.policy.optimizer if fast is None else fast.adam
    take_step = stepper.step

    def spy(*args: Any) -> Any:
        places.append(double_copy(model))
        grads.append({name: p.grad.clone() for name, p in model.policy.named_parameters() if p.grad is not None})
        return take_step(*args)

    stepper.step = spy
    model.train()
    assert len(places) == 2

    buffer, t = model.rollout_buffer, model.mirror_step_size()
    observations, actions, advantages = (
        torch.as_tensor(x).double() for x in (buffer.observations, buffer.actions, buffer.advantages.ravel())
    )
    advantages = (advantages - advantages.mean()) / advantages.std(unbiased=False)

    def loss_at(policy: Any) -> float:
        new, before = normal_of(policy, observations), normal_of(old, observations)
        ratio = (new.log_prob(actions) - before.log_prob(actions)).sum(1).exp()
        kl = torch.distributions.kl_divergence(new, before).sum(1)
        return float(-(ratio * advantages).mean() + kl.mean() / t - 0.02 * new.entropy().sum(1).mean())

    place, grad, width = places[1], grads[1], 1e-5
    with torch.no_grad():
        for name, parameter in place.named_parameters():
            if "value_net" in name:
                continue
            flat = parameter.view(-1)
            for i in range(0, len(flat), max(len(flat) // 3, 1)):
                kept = float(flat[i])
                flat[i] = kept + width
                above = loss_at(place)
                flat[i] = kept - width
                below = loss_at(place)
                flat[i] = kept
                slope = (above - below) / (2 * width)
                assert float(grad[name].view(-1)[i]) == pytest.approx(slope, rel=1e-3, abs=1e-5), name


# ---- the engines agree ---------------------------------------------------------------------------------------------
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "box": (lambda: Toy(SPACES["box"]), {}),
    "discrete": (lambda: Toy(SPACES["discrete"]), {}),
    "multi-discrete": (lambda: Toy(SPACES["multi-discrete"]), {"ent_coef": 0.05}),
    "masked discrete": (lambda: masked("discrete"), {"ent_coef": 0.05}),
    "masked multi-discrete": (lambda: masked("multi-discrete"), {}),
    "masked multi-binary": (lambda: masked("multi-binary"), {}),
    "no clipping": (lambda: Toy(SPACES["box"]), {"clip_range_vf": None, "ent_coef": 0.1}),
    "tight clipping": (lambda: Toy(SPACES["box"]), {"clip_range_vf": 0.01, "vf_learning_rate": 0.02}),
    "raw advantages": (lambda: Toy(SPACES["box"]), {"normalize_advantage": False, "step_size": 0.2}),
    "ReLU": (lambda: Toy(SPACES["box"]), {"policy_kwargs": {"activation_fn": torch.nn.ReLU, "net_arch": [16]}}),
    "four envs": (lambda: DummyVecEnv([lambda: Toy(SPACES["box"])] * 4), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_fast_engine_equals_autograd(case: str) -> None:
    make_env, options = CASES[case]
    models = []
    for engine in ENGINES:
        model = make(make_env(), engine=engine, **options)
        models.append(model.learn(3 * model.n_steps * model.n_envs))
        assert model.engine_in_use == engine
    one, two = models
    torch.testing.assert_close(parameters(one), parameters(two), rtol=0, atol=1e-5)
    logged, fast_logged = (m.logger.name_to_value for m in models)
    assert logged.keys() == fast_logged.keys()
    for key in logged:
        if key.startswith("train/"):
            assert fast_logged[key] == pytest.approx(logged[key], rel=1e-3, abs=1e-4), key


def test_engine_changes_in_mid_run_without_a_trace() -> None:
    models = [make(Toy(SPACES["box"]), engine="torch") for _ in range(2)]
    for model, engine in zip(models, ("torch", "fast"), strict=True):
        for turn in range(4):
            model.engine = engine if turn % 2 else "torch"
            torch.manual_seed(turn)
            np.random.seed(turn)  # noqa: NPY002
            model.learn(28, reset_num_timesteps=False)
    torch.testing.assert_close(parameters(models[0]), parameters(models[1]), rtol=0, atol=1e-5)


def test_what_the_fast_engine_cannot_do_runs_on_autograd_or_is_refused() -> None:
    for options in ({"tsallis_q": 1.4}, {"use_sde": True}):
        assert make(Toy(SPACES["box"]), **options).engine_in_use == "torch"
        with pytest.raises(InputError, match="fast engine cannot run"):
            make(Toy(SPACES["box"]), engine="fast", **options).learn(28)
    with pytest.raises(InputError, match="engine"):
        make(Toy(SPACES["box"]), engine="quick")


# ---- spaces and masks ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("q", [1.0, 1.4])
@pytest.mark.parametrize("space", SPACES)
def test_every_action_space_learns_and_predicts(space: str, q: float) -> None:
    model = make(Toy(SPACES[space]), tsallis_q=q)
    before = parameters(model)
    model.learn(56)
    assert torch.isfinite(parameters(model)).all()
    assert not torch.equal(parameters(model), before)
    action, _ = model.predict(np.zeros(3, np.float32), deterministic=True)
    assert SPACES[space].contains(action if np.shape(action) else int(action))
    assert model.logger.name_to_value["train/kl"] > 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("space", MASK_WIDTHS)
def test_illegal_actions_are_never_taken(space: str, engine: str) -> None:
    env = masked(space)
    model = make(env, engine=engine)
    assert model.use_masking
    assert isinstance(model.policy, MaskableActorCriticPolicy)
    model.learn(84)
    first = model.rollout_buffer.actions.reshape(28, -1)[:, 0]
    assert not (first == 1).any()
    assert model.rollout_buffer.action_masks.reshape(-1, MASK_WIDTHS[space])[:, 1].max() == 0
    mask = env.get_wrapper_attr("action_masks")()
    for _ in range(20):
        action, _ = model.predict(np.zeros(3, np.float32), action_masks=mask)
        assert np.ravel(action)[0] != 1


def test_masks_may_be_refused_and_are_asked_of_the_right_policies() -> None:
    model = make(masked("discrete"), use_masking=False)
    assert not model.use_masking
    with pytest.raises(ValueError, match="takes no action masks"):
        model.predict(np.zeros(3, np.float32), action_masks=np.ones(3, bool))
    with pytest.raises(ValueError, match="offers no action_masks"):
        make(Toy(SPACES["discrete"]), use_masking=True)

    class Own(ActorCriticPolicy):
        pass

    with pytest.raises(ValueError, match="Own cannot take them"):
        MDPO(Own, masked("discrete"), device="cpu")


def test_native_batch_of_a_masked_env_learns() -> None:
    vec = orl.make_vec("orl:orl/JobShop-v0", 4, observation="compact")
    model = MDPO("MlpPolicy", vec, n_steps=8, vf_batch_size=16, seed=0, device="cpu").learn(64)
    assert model.use_masking
    assert model.engine_in_use == "fast"
    frame = orl.evaluate(model, gymnasium.make("orl:orl/JobShop-v0", observation="compact"))
    assert int(frame["illegal_actions"].iloc[0]) == 0


def test_dict_observations_learn_on_both_engines() -> None:
    parts = {"angle": spaces.Box(-1, 1, (2,), np.float32), "time": spaces.Box(0, 1, (1,), np.float32)}
    models = [
        MDPO(
            "MultiInputPolicy",
            Toy(SPACES["discrete"], spaces.Dict(parts)),
            n_steps=28,
            vf_batch_size=8,
            seed=0,
            device="cpu",
            engine=engine,
        ).learn(56)
        for engine in ENGINES
    ]
    torch.testing.assert_close(parameters(models[0]), parameters(models[1]), rtol=0, atol=1e-5)


# ---- what SB3 users do ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("space", ["box", "masked discrete"])
def test_a_run_saved_half_way_goes_on_as_if_it_had_not_stopped(engine: str, space: str) -> None:
    """Same torch and numpy streams, same env: parameters after the load are bitwise those of the run without it."""
    env = masked("discrete") if space == "masked discrete" else Toy(SPACES["box"])
    model = make(env, engine=engine)
    model.learn(56)
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    state, numpy_state, env_copy = torch.get_rng_state(), np.random.get_state(), copy.deepcopy(model.get_env())  # noqa: NPY002
    model.learn(56, reset_num_timesteps=False)

    again = MDPO.load(file, env=env_copy, device="cpu", force_reset=False)
    assert again.engine == engine
    torch.set_rng_state(state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    again.learn(56, reset_num_timesteps=False)
    assert torch.equal(parameters(model), parameters(again))
    assert model.policy.value_optimizer.state_dict()["state"].keys() == (
        again.policy.value_optimizer.state_dict()["state"].keys()
    )


def test_loading_without_an_env_keeps_predictions_and_masks() -> None:
    model = make(masked("discrete")).learn(28)
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    again = MDPO.load(file, device="cpu")
    observation, mask = np.ones((5, 3), np.float32), np.tile([True, False, True], (5, 1))
    for chosen in (None, mask):
        expected, _ = model.predict(observation, deterministic=True, action_masks=chosen)
        np.testing.assert_array_equal(again.predict(observation, deterministic=True, action_masks=chosen)[0], expected)
    again.set_env(masked("discrete"))
    again.learn(28)


def test_callbacks_normalisation_and_loggers_work(tmp_path) -> None:
    env = VecNormalize(make_vec_env(lambda: Toy(SPACES["box"]), 2))
    test_env = VecNormalize(make_vec_env(lambda: Toy(SPACES["box"]), 1), training=False)
    callbacks: list[BaseCallback] = [
        EvalCallback(test_env, eval_freq=28, n_eval_episodes=1, best_model_save_path=str(tmp_path), verbose=0),
        CheckpointCallback(28, str(tmp_path)),
    ]
    model = make(env, tensorboard_log=str(tmp_path / "log"), learning_rate=lambda progress: 1e-3 * progress)
    model.learn(112, callback=callbacks, progress_bar=False)
    assert (tmp_path / "best_model.zip").exists()
    assert (tmp_path / "rl_model_56_steps.zip").exists()
    assert any((tmp_path / "log" / "MDPO_1").iterdir())
    expected = (
        "policy_gradient_loss value_loss kl kl_max step_size entropy_loss ratio_max explained_variance std n_updates"
    )
    assert {f"train/{name}" for name in [*expected.split(), "policy_grad_norm", "learning_rate"]} <= set(
        model.logger.name_to_value
    )


def test_bad_arguments_are_named() -> None:
    for options in (
        {"n_policy_steps": 0},
        {"tsallis_q": 0.5},
        {"step_size": "cosine"},
        {"step_size": 0.0},
        {"vf_batch_size": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(Toy(SPACES["box"]), **options)
    with pytest.warns(UserWarning, match="vf_batch_size=100"):
        make(Toy(SPACES["box"]), vf_batch_size=100).learn(28)


def test_orl_names_the_algorithms_lazily() -> None:
    assert orl.MDPO is MDPO
