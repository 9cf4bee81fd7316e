"""The engine room: Stable-Baselines3's mathematics on flat buffers with hand-written gradients.

Classes for users: :class:`orl.fast.ppo.FastPPO`, :class:`orl.fast.ppo.FastMaskablePPO`,
:class:`orl.fast.sac.FastSAC`, :class:`orl.fast.td3.FastTD3`, :class:`orl.fast.lean_vec_env.LeanVecEnv`. Pieces to build
on, from the ground up:

* :mod:`orl.fast.flat_parameters`: parameters and gradients as views into one buffer;
* :mod:`orl.fast.adam`: Adam over it, with an optimiser state that torch reads;
* :mod:`orl.fast.mlp`, :mod:`orl.fast.stacked`: networks and ensembles of equal networks, forward and backward;
* :mod:`orl.fast.distributions`, :mod:`orl.fast.sampling`: log-probability, entropy, KL and gradients; draws;
* :mod:`orl.fast.features`: observations as rows;
* :mod:`orl.fast.ppo_step`, :mod:`orl.fast.rollouts`: an actor-critic engine, one minibatch, one rollout;
* :mod:`orl.fast.squashed_gaussian`, :mod:`orl.fast.critics`, :mod:`orl.fast.transitions`: the actor's distribution,
  critics with their targets, batches from replay buffers;
* :mod:`orl.fast.sac_step`, :mod:`orl.fast.td3_step`, :mod:`orl.fast.off_policy`: one gradient step, the steps between;
* :mod:`orl.fast.engine_choice`: when the fast path runs.
"""
