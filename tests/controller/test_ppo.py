import math
import pickle
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from mnas.controller.policy import Policy
from mnas.controller.ppo import PPOSampler, ppo_loss

SPACE = {
    "op": CategoricalDistribution(["conv", "sepconv", "mbconv"]),
    "kernel": CategoricalDistribution([3, 5]),
    "fixed": CategoricalDistribution([1]),
    "layers": CategoricalDistribution([1, 2, 3, 4]),
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def new_policy(choices: Sequence[int] = (3, 2, 1, 4), *, init_range: float = 0.1) -> Policy:
    return Policy(choices, hidden_size=100, init_range=init_range, seed=0)


# The network


def test_size_and_initial_weights_are_the_papers() -> None:
    policy = new_policy()
    assert (policy.lstm.num_layers, policy.lstm.hidden_size, policy.lstm.input_size) == (1, 100, 100)
    shapes = {name: tuple(p.shape) for name, p in policy.named_parameters()}
    assert shapes == {
        "embedding": (1 + 10, 100),  # a start token, and 3 + 2 + 1 + 4 choices
        "lstm.weight_ih_l0": (400, 100),
        "lstm.weight_hh_l0": (400, 100),
        "lstm.bias_ih_l0": (400,),
        "lstm.bias_hh_l0": (400,),
        "head_weight": (10, 100),
        "head_bias": (10,),
    }
    for parameter in policy.parameters():
        assert parameter.abs().max() <= 0.1
    weights = policy.lstm.weight_hh_l0.detach().double()
    assert weights.abs().max() > 0.0999
    assert abs(weights.mean()) < 0.0015  # five standard errors of the mean of 40,000
    assert weights.std() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)


def test_probabilities_are_over_a_decisions_own_choices() -> None:
    indices = torch.tensor([[0, 1, 0, 3], [2, 0, 0, 0]])
    probs = new_policy()(indices).exp()
    assert probs.shape == (2, 4, 4)
    torch.testing.assert_close(probs.sum(-1), torch.ones(2, 4))
    for decision, choices in enumerate((3, 2, 1, 4)):
        assert (probs[:, decision, :choices] > 0).all()
        assert (probs[:, decision, choices:] == 0).all()


def test_a_choice_changes_what_follows_and_nothing_before() -> None:
    policy = new_policy(init_range=1.0)
    a, b = policy(torch.tensor([[0, 1, 0, 3], [0, 0, 0, 3]])).unbind(0)
    assert torch.equal(a[:2], b[:2])
    assert (a[2:] != b[2:]).any(-1).tolist() == [False, True]  # the third decision has nothing to choose
    assert (a[3] - b[3]).abs().max() > 0.1


def test_samples_follow_the_probabilities_they_are_scored_with() -> None:
    policy = new_policy(init_range=1.0)
    uniforms = torch.from_numpy(np.random.default_rng(0).random((4000, 4)))
    drawn = policy.sample(uniforms)
    # teacher-forced on what was drawn, each number lies in the share of the choice it drew
    probs = policy(drawn).detach().double().exp()
    upper = probs.cumsum(-1).gather(-1, drawn[..., None])[..., 0]
    lower = upper - probs.gather(-1, drawn[..., None])[..., 0]
    assert (uniforms < upper + 1e-5).all()
    assert (uniforms >= lower - 1e-5).all()
    assert policy.sample(torch.full((1, 4), 1 - 1e-12, dtype=torch.float64)).tolist() == [[2, 1, 0, 3]]
    assert policy.sample(torch.zeros(1, 4, dtype=torch.float64)).tolist() == [[0, 0, 0, 0]]


# The update


def test_loss_and_gradient_equal_ppos_formula() -> None:
    rng = np.random.default_rng(0)
    new, old = (np.log(rng.uniform(0.05, 0.95, (5, 3))) for _ in range(2))
    new[0] = old[0] + np.log([1.1, 1.3, 0.7])  # inside, above, below the clip
    advantages, entropy = np.array([1.0, -1.0, 0.5, -2.0, 0.0]), rng.uniform(0, 1, (5, 3))
    ratio = np.exp(new - old)
    total, gradient = 0.0, np.zeros_like(new)
    for i in range(5):
        for d in range(3):
            clipped = min(max(ratio[i, d], 0.8), 1.2)
            total += min(ratio[i, d] * advantages[i], clipped * advantages[i]) + 0.01 * entropy[i, d]
            if ratio[i, d] * advantages[i] <= clipped * advantages[i]:  # the unclipped branch is the one that counts
                gradient[i, d] = -ratio[i, d] * advantages[i] / 5
    log_probs = torch.tensor(new, requires_grad=True)
    loss = ppo_loss(
        log_probs,
        torch.tensor(old),
        torch.tensor(advantages),
        torch.tensor(entropy),
        clip=0.2,
        entropy_weight=0.01,
    )
    loss.backward()
    assert loss.item() == pytest.approx(-total / 5, rel=1e-12)
    assert log_probs.grad is not None
    # at an exact tie the two branches share the gradient; none of the numbers above ties outside the clip
    inside = (ratio > 0.8) & (ratio < 1.2)
    expected = np.where(inside, -ratio * advantages[:, None] / 5, gradient)
    np.testing.assert_allclose(log_probs.grad.numpy(), expected, rtol=1e-12, atol=1e-15)
    assert log_probs.grad[0, 1] == 0  # a good choice whose probability has already grown by more than the clip


def finish(study: optuna.Study, number: int, result: float | TrialState | None) -> None:
    """Draw one trial and store its value."""
    trial = study.ask(dict(SPACE))
    assert trial.number == number
    if isinstance(result, TrialState):
        study.tell(trial, state=result)
    else:
        study.tell(trial, result)


def ppo_study(sampler: PPOSampler, rewards: Sequence[float | TrialState]) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for number, reward in enumerate(rewards):
        finish(study, number, reward)
    sampler.learn(study, len(rewards))
    return study


def test_baseline_is_the_moving_average_in_order_of_number() -> None:
    sampler = PPOSampler(SPACE, seed=0, batch_size=2)
    ppo_study(sampler, [0.2, 0.6, 1.0, TrialState.FAIL, TrialState.FAIL, TrialState.FAIL, 0.5, TrialState.PRUNED])
    first = 0.4  # the first batch's mean, then both of its rewards
    after_first = 0.95 * (0.95 * first + 0.05 * 0.2) + 0.05 * 0.6
    after_second = 0.95 * after_first + 0.05 * 1.0
    after_fourth = 0.95 * (0.95 * after_second + 0.05 * 0.5) + 0.05 * 0.0
    assert [(u.batch, u.trials) for u in sampler.history] == [(0, 2), (1, 1), (3, 2)]  # all of batch 2 failed
    assert [u.baseline for u in sampler.history] == pytest.approx([after_first, after_second, after_fourth], rel=1e-15)
    assert [u.mean_reward for u in sampler.history] == pytest.approx([0.4, 1.0, 0.25], rel=1e-15)
    assert sampler.diagnostics()["batch"] == 3


def test_a_pruned_trial_is_worth_zero_or_the_lowest_reward_so_far() -> None:
    sampler = PPOSampler(SPACE, seed=0, batch_size=2)
    ppo_study(sampler, [-0.4, TrialState.PRUNED, 0.3, TrialState.PRUNED])
    assert [u.mean_reward for u in sampler.history] == pytest.approx([-0.4, -0.05], rel=1e-15)


def test_minimised_values_are_negative_rewards() -> None:
    sampler = PPOSampler(SPACE, seed=0, batch_size=2)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    finish(study, 0, 3.0)
    finish(study, 1, 5.0)
    sampler.learn(study, 2)
    assert sampler.diagnostics()["mean_reward"] == -4.0


def test_one_update_equals_one_written_out() -> None:
    rewards = [0.1, 0.9, 0.4, 0.4]
    sampler = PPOSampler(SPACE, seed=3, batch_size=4, entropy_weight=0.01, learning_rate=0.01)
    study = ppo_study(sampler, rewards)
    policy = sampler._states[0][1].policy  # before any update
    trained = sampler._states[-1][1].policy
    reference = Policy((3, 2, 1, 4), hidden_size=100, init_range=0.1, seed=0)
    reference.load_state_dict(policy.state_dict())
    indices = torch.tensor([[int(d.to_internal_repr(t.params[n])) for n, d in SPACE.items()] for t in study.trials])
    advantages = np.array(rewards) - np.mean(rewards)
    advantages = torch.tensor(advantages / np.sqrt(np.mean(advantages**2)), dtype=torch.float32)
    adam = torch.optim.Adam(reference.parameters(), lr=0.01)
    old = reference(indices).detach().gather(-1, indices[..., None])[..., 0]
    for _ in range(4):
        log_probs = reference(indices)
        entropy = torch.distributions.Categorical(logits=log_probs.clamp_min(-50)).entropy()
        chosen = log_probs.gather(-1, indices[..., None])[..., 0]
        loss = ppo_loss(chosen, old, advantages, entropy, clip=0.2, entropy_weight=0.01)
        adam.zero_grad()
        loss.backward()
        adam.step()
    for mine, theirs in zip(trained.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)  # of four steps of up to 0.01
    ratio = (trained(indices).gather(-1, indices[..., None])[..., 0] - old).exp()
    update = sampler.history[0]
    assert update.kl == pytest.approx((ratio - 1 - ratio.log()).mean().item(), abs=1e-6)
    assert update.clip_fraction == pytest.approx(((ratio - 1).abs() > 0.2).double().mean().item())
    assert update.clip_fraction > 0  # at this learning rate the clip is reached


def test_old_probabilities_are_those_the_batch_was_drawn_with() -> None:
    sampler = PPOSampler(SPACE, seed=0, batch_size=5, learning_rate=0.01)
    study = ppo_study(sampler, [0.1 * i for i in range(10)])
    drew_second = sampler._states[1][1].policy
    uniforms = np.stack([np.random.default_rng([0, n]).random(4) for n in range(5, 10)])
    drawn = drew_second.sample(torch.from_numpy(uniforms)).tolist()
    assert drawn == [[int(d.to_internal_repr(t.params[n])) for n, d in SPACE.items()] for t in study.trials[5:]]


def test_the_entropy_bonus_keeps_the_policy_open() -> None:
    def entropy(weight: float) -> float:
        sampler = PPOSampler(SPACE, seed=0, batch_size=10, learning_rate=0.01, entropy_weight=weight)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(lambda t: [t.suggest_categorical(n, d.choices) for n, d in SPACE.items()][3], n_trials=150)
        sampler.learn(study, 150)
        return sum(sampler.history[-1].entropy_per_decision.values())

    assert entropy(0.0) < 1.0 < entropy(1.0)
    assert entropy(1.0) <= math.log(3 * 2 * 4) + 1e-6


def test_diagnostics_stay_in_their_ranges() -> None:
    sampler = PPOSampler(SPACE, seed=0, batch_size=5, learning_rate=0.01)
    assert sampler.diagnostics() == {}
    ppo_study(sampler, np.random.default_rng(0).random(60).tolist())
    assert len(sampler.history) == 12
    for update in sampler.history:
        assert update.kl >= 0
        assert 0 <= update.clip_fraction <= 1
        assert list(update.entropy_per_decision) == list(SPACE)
        assert update.entropy_per_decision["fixed"] == 0
        for name, distribution in SPACE.items():
            assert 0 <= update.entropy_per_decision[name] <= math.log(len(distribution.choices)) + 1e-6


@pytest.mark.parametrize("normalize", [True, False])
def test_equal_rewards_teach_nothing(normalize: bool) -> None:
    sampler = PPOSampler(SPACE, seed=0, batch_size=5, entropy_weight=0.0, normalize_advantages=normalize)
    ppo_study(sampler, [0.7] * 20)
    assert [u.kl for u in sampler.history] == [0.0] * 4


# As an Optuna sampler


def mean_of_last(sampler: optuna.samplers.BaseSampler, trials: int, last: int) -> float:
    """Ten decisions of three choices; the value is the share of decisions that took their last choice."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(
        lambda trial: sum(trial.suggest_categorical(f"d{d}", [0, 1, 2]) == 2 for d in range(10)) / 10, n_trials=trials
    )
    return float(np.mean([t.value for t in study.get_trials(deepcopy=False)[-last:]]))


def test_ppo_beats_random() -> None:
    """False alarm: at most 7e-12 for each seed.

    Were PPO no better than random, both means would be of 100 * 10 independent choices, each 1 or 0. By Hoeffding's
    inequality their difference is above t with a probability of at most exp(-1000 t^2); t = 0.16 is asked for.
    """
    space = {f"d{d}": CategoricalDistribution([0, 1, 2]) for d in range(10)}
    for seed in (0, 1):
        ppo = mean_of_last(PPOSampler(space, seed=seed), 600, 100)
        random = mean_of_last(optuna.samplers.RandomSampler(seed=seed), 100, 100)
        assert ppo > random + 0.16, (seed, ppo, random)


def test_several_objectives_need_a_reward() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=PPOSampler(SPACE, seed=0))
    with pytest.raises(
        ValueError, match=r"needs PPOSampler\(..., reward=...\).*but got directions=\['maximize', 'minim"
    ):
        study.ask(dict(SPACE))

    def reward(trial: FrozenTrial) -> float:
        return trial.values[0] - trial.values[1]

    sampler = PPOSampler(SPACE, seed=0, batch_size=2, reward=reward)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for values in ((0.5, 0.25), (1.0, 0.25)):
        study.tell(study.ask(dict(SPACE)), values)
    sampler.learn(study, 2)
    assert sampler.diagnostics()["mean_reward"] == 0.5


def test_a_reward_that_is_not_a_number_is_named() -> None:
    sampler = PPOSampler(SPACE, seed=0, batch_size=1, reward=lambda trial: math.nan)
    study = optuna.create_study(sampler=sampler)
    study.tell(study.ask(dict(SPACE)), 1.0)
    with pytest.raises(ValueError, match="must be a finite number, but got nan for trial 0"):
        study.ask(dict(SPACE))


def test_parameters_outside_the_space_are_drawn_at_random_and_repeat() -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("op", SPACE["op"].choices)
        return trial.suggest_float("rate", 0, 1) + trial.suggest_float("rate2", 0, 1)

    runs = []
    for _ in range(2):
        study = optuna.create_study(sampler=PPOSampler(SPACE, seed=0, batch_size=3))
        study.optimize(objective, n_trials=7)
        runs.append([t.params for t in study.trials])
    assert runs[0] == runs[1]
    assert len({value for params in runs[0] for value in params.values() if isinstance(value, float)}) == 14


def test_trials_from_other_sources_are_read_or_ignored() -> None:
    """Enqueued trials count; those that lack a decision of the space do not."""
    sampler = PPOSampler(SPACE, seed=0, batch_size=3)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({"op": "mbconv", "kernel": 5, "fixed": 1, "layers": 4})
    finish(study, 0, 1.0)
    study.add_trial(create_trial(value=9.0, params={"op": "conv"}, distributions={"op": SPACE["op"]}))
    finish(study, 2, 0.5)
    sampler.learn(study, 3)
    assert (sampler.history[0].trials, sampler.history[0].mean_reward) == (2, 0.75)


def test_trials_that_finish_late_are_learned_then() -> None:
    def draw_after(order: Sequence[int]) -> list[dict[str, object]]:
        study = optuna.create_study(
            direction="maximize", sampler=PPOSampler(SPACE, seed=0, batch_size=4, learning_rate=0.1)
        )
        trials = [study.ask(dict(SPACE)) for _ in range(4)]
        drawn = []
        for number in order:
            study.tell(trials[number], number / 4)
            if number == 1:  # a trial of an earlier batch is still running: draw without it
                drawn.append(study.ask(dict(SPACE)))
        drawn += [study.ask(dict(SPACE)) for _ in range(12)]
        return [trial.params for trial in drawn]

    late, in_time = draw_after([0, 2, 1, 3]), draw_after([0, 2, 3, 1])
    assert late[1:] == in_time[1:]


def test_a_pickled_sampler_continues_identically() -> None:
    sampler = PPOSampler(SPACE, seed=0, batch_size=3)
    study = ppo_study(sampler, [0.1, 0.5, 0.3, 0.6])
    copy = pickle.loads(pickle.dumps(sampler))
    trials = [study.ask(dict(SPACE)) for _ in range(2)]
    study.sampler = copy
    assert copy.history == sampler.history
    rest = study.trials[:4]
    again = optuna.create_study(direction="maximize", sampler=copy)
    again.add_trials(rest)
    assert [again.ask(dict(SPACE)).params for _ in range(2)] == [t.params for t in trials]


def test_torch_keeps_its_number_of_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ppo_study(PPOSampler(SPACE, seed=0, batch_size=2), [0.1, 0.2, 0.3])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1.5}, "seed must be an integer of 0 or more, but got 1.5"),
        ({"batch_size": 0}, "batch_size must be an integer of 1 or more, but got 0"),
        ({"hidden_size": 0}, "hidden_size must be an integer of 1 or more"),
        ({"epochs": True}, "epochs must be an integer of 1 or more, but got True"),
        ({"learning_rate": -0.1}, "learning_rate must be a number from 0 to 1, but got -0.1"),
        ({"clip": math.nan}, "clip must be a number from 0 to 1, but got nan"),
        ({"baseline_decay": 1.1}, "baseline_decay must be a number from 0 to 1"),
        ({"entropy_weight": "big"}, "entropy_weight must be a number from 0 to 1000, but got 'big'"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOSampler(SPACE, **{"seed": 0, **arguments})


def test_bad_spaces() -> None:
    with pytest.raises(ValueError, match="space must have at least one decision"):
        PPOSampler({}, seed=0)
    with pytest.raises(ValueError, match="only CategoricalDistribution, but got rate=FloatDistribution"):
        PPOSampler({"rate": FloatDistribution(0, 1)}, seed=0)


def test_each_minibatch_is_a_step():
    """Ten models are one step per epoch in minibatches of 20, and three in minibatches of 4, with another result."""
    import optuna
    from optuna.distributions import CategoricalDistribution

    space = {f"d{i}": CategoricalDistribution([0, 1, 2]) for i in range(3)}

    def last_draws(minibatch_size):
        sampler = PPOSampler(space, seed=0, batch_size=10, minibatch_size=minibatch_size, learning_rate=0.01)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(lambda t: sum(t.suggest_categorical(n, d.choices) for n, d in space.items()), n_trials=11)
        steps = {int(state["step"]) for state in sampler._states[-1][1].adam.state.values()}
        return steps, sampler.diagnostics()["kl"]

    whole, small = last_draws(20), last_draws(4)
    assert whole[0] == {4}
    assert small[0] == {12}
    assert whole[1] != small[1]
