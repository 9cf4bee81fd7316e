"""The algorithm on two tanks whose optimum is known: learning, evaluation, saving, SB3's manners, refusals."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from tank_toy import TankEnv, Tanks, all_outcomes, optimum

import orl
from orl.common import counter_noise
from orl.common.errors import InputError
from orl.envs.hydrothermal.library import load
from orl.tsddr import TSDDR

UPDATE = 3 * 16  # stages of an update


def make(policy="MLPTarget", env=None, **options) -> TSDDR:
    options = {"seed": 0, "policy_kwargs": {} if policy == "LinearTarget" else {"net_arch": [16]}} | options
    return TSDDR(policy, TankEnv() if env is None else env, **options)


def parameters(model) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.policy.state_dict().items()}


def same(a, b) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def expected_cost(model) -> float:
    return float(model.simulate(Tanks().noise_of(all_outcomes())).totals.mean())


class Records(BaseCallback):
    """What was logged, by name, at every gradient step but the last."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict] = []
        self.rates: list[float] = []

    def _on_rollout_start(self) -> None:
        self.rows.append(dict(self.model.logger.name_to_value))
        self.rates.append(self.model.policy.optimizer.param_groups[0]["lr"])

    def _on_step(self) -> bool:
        return True


# ---- learning ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("policy", ["LSTMTarget", "MLPTarget"])
def test_it_learns_the_optimum_and_never_beats_it(policy) -> None:
    best = optimum()
    model = make(policy, learning_rate=0.03, policy_kwargs={})
    before = expected_cost(model)
    model.learn(250 * UPDATE)
    assert before > 2 * best
    assert best * (1 - 1e-9) <= expected_cost(model) <= 1.02 * best


def test_a_linear_rule_learns_less() -> None:
    model = make("LinearTarget", learning_rate=0.03).learn(250 * UPDATE)
    assert optimum() * (1 - 1e-9) <= expected_cost(model) <= 1.1 * optimum()


@pytest.mark.parametrize("options", [{}, {"window": 2}, {"penalty": 150.0}, {"penalty_schedule": "annealed"}], ids=str)
def test_soft_targets_learn_too_and_their_cost_is_that_of_the_environment(options) -> None:
    model = make(env=TankEnv(reachable=False), mode="soft", batch_size=4, **options)
    before, records = expected_cost(model), Records()
    model.learn(50 * 12, callback=records)
    assert optimum() <= expected_cost(model) < before
    assert all(0 <= row["train/violation_share"] < 1 for row in records.rows[1:9])
    assert records.rows[1]["train/violation_share"] > 0
    noise = model.target_model.draw(model._keys())
    assert model.simulate(noise).costs.shape == (3, 4)


def test_the_annealed_penalty_grows_with_the_progress() -> None:
    model = make(env=TankEnv(reachable=False), mode="soft", batch_size=1, penalty=7.0, penalty_schedule="annealed")
    seen = []
    for progress in (1.0, 0.9, 0.7, 0.1):
        model._current_progress_remaining = progress
        seen.append(model.present_penalty())
    np.testing.assert_allclose(seen, [0.7, 7.0, 70.0, 210.0])
    model.penalty, model.penalty_schedule = "auto", None
    assert model.present_penalty() == Tanks.penalty
    model.penalty_schedule = lambda progress: 1 + progress
    assert model.present_penalty() == pytest.approx(1.1 * Tanks.penalty)


def test_a_training_can_go_on_and_counts_stages() -> None:
    model = make().learn(100)
    assert model.num_timesteps == 144
    assert model._n_updates == 3
    model.learn(UPDATE, reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates) == (192, 4)
    model.learn(UPDATE)
    assert (model.num_timesteps, model._n_updates) == (UPDATE, 5)


def test_seeds_reproduce_bit_for_bit() -> None:
    first, again, other = (parameters(make("LSTMTarget", seed=s).learn(5 * UPDATE)) for s in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)


def test_every_update_has_episodes_of_its_own_and_none_of_the_panel() -> None:
    model, keys = make(), []
    for model._n_updates in range(20):
        keys += model._keys().tolist()
    drawn = []
    model.target_model.draw = lambda panel: drawn.extend(panel.tolist()) or Tanks().draw(panel)
    model.evaluate()
    assert len(set(keys)) == 20 * 16
    assert len(set(drawn)) == 30
    assert not set(keys) & set(drawn)


def test_the_rate_falls_along_a_cosine_or_follows_a_schedule() -> None:
    records = Records()
    make(learning_rate=0.01).learn(20 * UPDATE, callback=records)
    assert records.rates[1:] == sorted(records.rates[1:], reverse=True)
    assert records.rates[1] == pytest.approx(0.01, rel=0.02)
    assert records.rates[-1] < 0.001
    for constant in (make(learning_rate=0.01, final_lr_share=1.0), make(learning_rate=lambda _: 0.01)):
        constant.learn(4 * UPDATE)
        assert constant.policy.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_gradients_are_clipped_on_request() -> None:
    free, held = make(), make(max_grad_norm=1e-12)
    before = parameters(free)
    for model in (free, held):
        model.policy.optimizer = type(
            "Plain",
            (),
            {
                "zero_grad": lambda s: [p.grad.zero_() for p in s.p if p.grad is not None],
                "step": lambda s: [p.data.sub_(p.grad) for p in s.p],
                "param_groups": [{}],
            },
        )()
        model.policy.optimizer.p = list(model.policy.parameters())
        model.learn(UPDATE)
    moved = [max(np.abs(value - before[name]).max() for name, value in parameters(m).items()) for m in (free, held)]
    assert moved[0] > 1e-6
    assert 0 < moved[1] <= 1.1e-12


# ---- evaluation ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("policy", ["LSTMTarget", "MLPTarget", "LinearTarget"])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_environment_gives_the_costs_of_simulate(policy, n_envs) -> None:
    model = make(policy).learn(5 * UPDATE)
    env = DummyVecEnv([lambda: Monitor(TankEnv())] * n_envs)
    env.seed(11)
    rewards, _ = evaluate_policy(model, env, n_eval_episodes=n_envs, return_episode_rewards=True)
    keys = [counter_noise.draw_key(gymnasium.utils.seeding.np_random(11 + i)[0]) for i in range(n_envs)]
    costs = model.simulate(Tanks().draw(np.array(keys))).totals
    np.testing.assert_allclose(-np.array(rewards), costs, rtol=1e-9, atol=1e-6)  # a Monitor rounds to 1e-6


def test_learn_leaves_the_best_parameters_behind() -> None:
    options = {"learning_rate": 0.5, "final_lr_share": 1.0, "eval_freq": 2}  # rough, so that it gets worse at times
    model = make(**options).learn(20 * UPDATE)
    assert model.evaluate() == model.best_cost
    last = make(**options, keep_best=False).learn(20 * UPDATE)
    assert last.best_cost == model.best_cost
    assert last.evaluate() > last.best_cost


def test_without_evaluation_the_last_parameters_stay() -> None:
    model = make(eval_freq=0).learn(3 * UPDATE)
    assert model.best_cost == np.inf
    assert same(parameters(model), parameters(make(keep_best=False).learn(3 * UPDATE)))


class CtrlC(BaseCallback):
    def _on_step(self) -> bool:
        if self.model._n_updates == 7:
            raise KeyboardInterrupt
        return True


def test_ctrl_c_leaves_the_best_parameters_so_far() -> None:
    model = make(learning_rate=0.5, final_lr_share=1.0, eval_freq=2)
    with pytest.raises(KeyboardInterrupt):
        model.learn(100 * UPDATE, callback=CtrlC())
    assert model._n_updates == 7
    assert model.evaluate() == model.best_cost
    model.learn(UPDATE, reset_num_timesteps=False)
    assert model._n_updates == 8


# ---- SB3's manners -------------------------------------------------------------------------------------------------
def test_it_is_saved_and_goes_on_as_if_it_had_not_been(tmp_path) -> None:
    model = make("LSTMTarget", keep_best=False, final_lr_share=1.0, policy_kwargs={"lstm_hidden": 6})
    model.learn(4 * UPDATE)
    model.save(tmp_path / "model")
    again = TSDDR.load(tmp_path / "model", env=TankEnv())
    assert same(parameters(model), parameters(again))
    assert again.best_cost == model.best_cost
    for m in (model, again):
        m.learn(3 * UPDATE, reset_num_timesteps=False)
    assert same(parameters(model), parameters(again))


def test_a_model_without_its_environment_predicts_but_does_not_learn(tmp_path) -> None:
    model = make("LSTMTarget").learn(UPDATE)
    model.save(tmp_path / "model")
    alone = TSDDR.load(tmp_path / "model")
    seen = TankEnv().reset(seed=1)[0]
    np.testing.assert_array_equal(alone.predict(seen)[0], model.predict(seen)[0])
    with pytest.raises(InputError, match="no environment"):
        alone.learn(1)
    alone.set_env(TankEnv())
    assert alone.learn(1).num_timesteps == UPDATE


class DearTanks(Tanks):
    def costs_and_gradients(self, *states):
        return tuple(10.0 * numbers for numbers in super().costs_and_gradients(*states))


class DearEnv(TankEnv):
    def target_model(self):
        return DearTanks()


def test_a_loaded_model_learns_in_another_problem_however_dear(tmp_path) -> None:
    model = make(eval_freq=2, learning_rate=0.5, final_lr_share=1.0, keep_best=False).learn(20 * UPDATE)
    assert model.evaluate() > model.best_cost  # the last parameters are not the best
    model.save(tmp_path / "model")
    again = TSDDR.load(tmp_path / "model", env=DearEnv(), custom_objects={"keep_best": True})
    assert same(parameters(model), parameters(again))
    assert again.best_cost == pytest.approx(10 * model.best_cost)
    again.learn(60 * UPDATE)
    assert again.evaluate() == again.best_cost < 9.99 * model.best_cost


def test_the_best_cost_is_that_of_the_present_environment() -> None:
    model = make(eval_freq=2).learn(4 * UPDATE)
    cheap = model.best_cost
    model.set_env(DearEnv())
    assert model.best_cost == np.inf
    model.learn(2 * UPDATE)
    assert model.best_cost == model.evaluate() > cheap


def test_a_soft_model_is_loaded_with_its_environment(tmp_path) -> None:
    make(env=TankEnv(reachable=False), mode="soft", batch_size=1).save(tmp_path / "model")
    assert TSDDR.load(tmp_path / "model", env=TankEnv(reachable=False)).mode == "soft"
    with pytest.raises(InputError, match="mode"):
        TSDDR.load(tmp_path / "model", env=TankEnv())


def test_callbacks_hear_of_every_step_of_the_copies() -> None:
    steps = []

    class Counts(BaseCallback):
        def _on_step(self) -> bool:
            steps.append(self.num_timesteps)
            return True

    model = make(env=DummyVecEnv([TankEnv] * 5))
    model.learn(2 * UPDATE, callback=Counts())
    assert steps[:3] == [5, 10, 15]
    assert steps[9:12] == [48, 53, 58]
    assert steps[-1] == model.num_timesteps == 2 * UPDATE


def test_a_callback_ends_the_training() -> None:
    class Enough(BaseCallback):
        def _on_step(self) -> bool:
            return self.num_timesteps < 70

    model = make().learn(10 * UPDATE, callback=Enough())
    assert (model.num_timesteps, model._n_updates) == (70, 1)


def test_a_number_of_episodes_ends_the_training() -> None:
    model = make().learn(10 * UPDATE, callback=StopTrainingOnMaxEpisodes(20))
    assert model.num_timesteps == 20 * 3  # the last stage of the twentieth episode


def test_the_callbacks_of_sb3_work(tmp_path) -> None:
    evaluation = EvalCallback(
        Monitor(TankEnv()), n_eval_episodes=3, eval_freq=30, best_model_save_path=str(tmp_path), verbose=0
    )
    make().learn(2 * UPDATE, callback=[evaluation, CheckpointCallback(50, str(tmp_path))], log_interval=1)
    assert evaluation.n_calls == 2 * UPDATE
    assert TSDDR.load(tmp_path / "best_model").num_timesteps in (30, 60, 90)
    assert TSDDR.load(tmp_path / "rl_model_50_steps").num_timesteps == 50


def test_what_is_logged(tmp_path) -> None:
    model, dumped = make(eval_freq=2), []

    class Writer(KVWriter):
        def write(self, values, excluded, step=0) -> None:
            dumped.append(dict(values) | {"step": step})

        def close(self) -> None:
            pass

    model.set_logger(Logger(None, [Writer()]))
    model.learn(4 * UPDATE, log_interval=2)
    assert len(dumped) == 2
    expected = {"train/cost", "train/gradient_norm", "train/learning_rate", "train/n_updates"}
    expected |= {"eval/cost", "eval/best_cost", "time/fps", "time/total_timesteps", "time/iterations", "step"}
    assert expected <= set(dumped[-1])
    assert dumped[-1]["step"] == 4 * UPDATE
    assert dumped[-1]["eval/best_cost"] == model.best_cost


def test_a_subprocess_hands_its_model_over() -> None:
    env = SubprocVecEnv([TankEnv, TankEnv], start_method="fork")
    try:
        model = make(env=env).learn(UPDATE)
        assert model.predict(env.reset())[0].shape == (2, 2)
    finally:
        env.close()


def test_orl_names_it() -> None:
    assert orl.TSDDR is TSDDR
    assert orl.registry.algorithm("tsddr") is TSDDR


# ---- refusals ------------------------------------------------------------------------------------------------------
def test_an_environment_without_a_model_is_refused() -> None:
    for env in (gymnasium.make("CartPole-v1"), gymnasium.make("Pendulum-v1")):
        with pytest.raises(InputError, match=r"target_model\(\)"):
            TSDDR("MLPTarget", env)


class OneModelEnv(TankEnv):
    """Its copies share a model."""

    shared = Tanks()

    def target_model(self):
        return self.shared


def test_copies_of_different_problems_are_refused() -> None:
    make(env=DummyVecEnv([TankEnv, TankEnv]))
    make(env=DummyVecEnv([OneModelEnv] * 3))
    with pytest.raises(InputError, match="copies 0 and 2 play different problems"):
        make(env=DummyVecEnv([TankEnv, TankEnv, DearEnv]))


def rivers(*instances):
    return DummyVecEnv([lambda e=e: gymnasium.make("orl:orl/Hydrothermal-v0", instance=e) for e in instances])


def test_reservoirs_with_other_inflows_are_other_problems() -> None:
    tri3 = load("tri3")
    wetter = replace(tri3, inflows=tri3.inflows * np.array([1.0, 1.5, 1.0])[:, None])
    likelier = replace(tri3, probabilities=np.tile([0.30, 0.36, 0.34], (len(tri3.probabilities), 1)))
    for other in (wetter, likelier, tri3.scenario(1)):
        with pytest.raises(InputError, match="copies 0 and 1"):
            TSDDR("MLPTarget", rivers(tri3, other))
    with pytest.raises(InputError, match="copies 0 and 1"):
        TSDDR("MLPTarget", rivers(tri3.scenario(1), tri3.scenario(2)))


def test_the_number_of_copies_changes_nothing() -> None:
    instance = "cascade-6x5-s0"
    batch = orl.make_vec("orl:orl/Hydrothermal-v0", 3, instance=instance)
    found = [
        parameters(TSDDR("MLPTarget", env, seed=0, batch_size=4).learn(400))
        for env in (rivers(instance), rivers(instance, instance), batch)
    ]
    assert same(found[0], found[1])
    assert same(found[0], found[2])


class NoCosts(TankEnv):
    def target_model(self):
        model = Tanks()
        return type("Half", (), {name: getattr(model, name) for name in ("draw", "reach", "n_stages")})()


class Strict(Tanks):
    soft_costs_and_gradients = property(doc="not there")

    def __getattribute__(self, name):
        if name == "soft_costs_and_gradients":
            raise AttributeError(name)
        return super().__getattribute__(name)


class NoProgrammes(TankEnv):
    def target_model(self):
        return Strict(reachable=False)


def changed(space: str, value: spaces.Box) -> TankEnv:
    """An environment whose own space is not the model's."""
    env = TankEnv()
    setattr(env, space, value)
    return env


@pytest.mark.parametrize(
    "env, options, message",
    [
        (NoCosts, {}, "costs_and_gradients"),
        (lambda: TankEnv(reachable=False), {}, "need not be reachable"),
        (TankEnv, {"mode": "soft"}, "only targets that can be reached"),
        (NoProgrammes, {"mode": "soft"}, "SoftTargetModel"),
        (lambda: gymnasium.wrappers.RescaleAction(TankEnv(), 0.0, 1.0), {}, "ActionWrapper"),
        (lambda: gymnasium.wrappers.NormalizeObservation(TankEnv()), {}, "ObservationWrapper"),
        (lambda: changed("action_space", spaces.Box(0, 1, (2,))), {}, "action_space"),
        (lambda: changed("observation_space", spaces.Box(-1, 1, (4,))), {}, "observation_space"),
        (lambda: VecNormalize(DummyVecEnv([TankEnv])), {}, "VecNormalize"),
        (TankEnv, {"mode": "hard"}, "mode"),
        (TankEnv, {"batch_size": 0}, "batch_size"),
        (TankEnv, {"window": 0}, "window"),
        (TankEnv, {"penalty": -1.0}, "penalty"),
        (TankEnv, {"penalty_schedule": "soon"}, "penalty_schedule"),
        (TankEnv, {"n_eval_episodes": 0}, "n_eval_episodes"),
        (TankEnv, {"eval_freq": -1}, "eval_freq"),
        (TankEnv, {"final_lr_share": 2.0}, "final_lr_share"),
        (TankEnv, {"max_grad_norm": 0.0}, "max_grad_norm"),
        (TankEnv, {"dtype": "float16"}, "dtype"),
    ],
)
def test_what_does_not_fit_is_refused(env, options, message) -> None:
    with pytest.raises(InputError, match=message):
        make(env=env(), **options)


def test_a_refused_environment_leaves_the_model_as_it_was() -> None:
    model = make()
    with pytest.raises(InputError, match="mode"):
        model.set_env(TankEnv(reachable=False))
    assert model.learn(UPDATE).num_timesteps == UPDATE


def test_parameters_that_run_away_are_noticed() -> None:
    model = make()
    model.policy.from_context.bias.data.fill_(np.nan)
    with pytest.raises(FloatingPointError, match="learning_rate"):
        model.learn(UPDATE)
