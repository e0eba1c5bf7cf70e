"""The paper's controller: an RNN that samples architectures, trained by proximal policy optimisation.

Tan et al., MnasNet (CVPR 2019, arXiv:1807.11626), section 4.2: sample a batch, evaluate it, update by PPO (Schulman et
al., arXiv:1707.06347). Its hyper-parameters are those of NASNet's controller (arXiv:1707.07012, appendix A.1):
one-layer LSTM, 100 hidden units, weights uniform(-0.1, 0.1), learning rate 0.00035, entropy weight 0.00001,
moving-average baseline 0.95, updates on 20 finished models. Adam is Zoph and Le's (arXiv:1611.01578). No source gives
these, so we chose:
1. Clip 0.2 and 4 epochs, the common ones of PPO. A minibatch is the whole batch of 20 by default.
2. A ratio per decision, as decisions are PPO's actions; losses are summed over decisions and averaged over models.
3. The baseline moves with every finished model, in order of number. The advantages of a batch are relative to the
   baseline before it; those of the first batch, to its own mean.
4. Advantages are divided by their root mean square over the batch (`normalize_advantages`), so that steps do not shrink
   with the scale of the reward. Their mean stays: removing it would undo the baseline.
5. The entropy bonus is weighted against these normalised advantages, and summed over decisions.
6. A batch is a range of trial numbers; failed trials teach nothing, so an update may be on fewer than 20 models.
7. Old probabilities are those of the policy before the update, which drew the batch; enqueued trials too.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from optuna.distributions import CategoricalDistribution
from torch import Tensor

from mnas.controller.one_thread import one_thread
from mnas.controller.policy import Policy
from mnas.controller.sampler import Batch, ClosedBatchSampler, Reward, derived_seed
from mnas.require import require_int, require_number

_KEPT_STATES = 4  # with `n_jobs`, trials of the last batches may finish late: only these states are learned again


@dataclass(frozen=True, kw_only=True)
class PPOUpdate:
    """Record of one update."""

    batch: int
    """Number of the closed batch that it learned from."""
    trials: int
    """Number of models in the batch."""
    mean_reward: float
    """Mean reward of the models."""
    baseline: float
    """Moving average of rewards after the update."""
    kl: float
    """KL divergence of the new policy from the old, nats per decision: mean of ratio - 1 - log ratio, 0 or more."""
    clip_fraction: float
    """Share of decisions whose ratio ended outside 1 +- clip."""
    entropy_per_decision: dict[str, float]
    """Entropy of each decision after the update in nats, averaged over what the batch chose before the decision."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    learning_rate: float
    entropy_weight: float
    baseline_decay: float
    clip: float
    epochs: int
    minibatch_size: int
    normalize_advantages: bool


def ppo_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, entropy: Tensor, *, clip: float, entropy_weight: float
) -> Tensor:
    """Return PPO's clipped objective with an entropy bonus, to be minimised.

    Args:
        log_probs: (N, D) log-probabilities of the choices, by the policy that learns.
        old_log_probs: (N, D), by the policy that chose.
        advantages: (N,).
        entropy: (N, D), nats.
        clip: how far from 1 a ratio still counts.
        entropy_weight: weight of the bonus.

    Returns: a scalar, summed over decisions, averaged over models.
    """
    ratio = (log_probs - old_log_probs).exp()
    gain = torch.min(ratio * advantages[:, None], ratio.clamp(1 - clip, 1 + clip) * advantages[:, None])
    return -(gain + entropy_weight * entropy).sum(1).mean()


class _Learner:
    """Policy, optimiser and baseline: all that an update changes."""

    def __init__(self, policy: Policy, settings: _Settings) -> None:
        self.policy = policy
        self.adam = torch.optim.Adam(policy.parameters(), lr=settings.learning_rate)
        self.settings = settings
        self.baseline: float | None = None
        self.history: tuple[PPOUpdate, ...] = ()

    def _evaluate(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of (N, D) choices and the decisions' entropies, both (N, D)."""
        log_probs: Tensor = self.policy(indices)
        return log_probs.gather(-1, indices[..., None])[..., 0], -(log_probs.exp() * log_probs).sum(-1)

    def _advantages(self, rewards: list[float]) -> Tensor:
        """Return the rewards relative to the baseline, which then moves."""
        if self.baseline is None:
            self.baseline = math.fsum(rewards) / len(rewards)
        advantages = torch.tensor(rewards, dtype=torch.float64) - self.baseline
        decay = self.settings.baseline_decay
        for reward in rewards:
            self.baseline = decay * self.baseline + (1 - decay) * reward
        if self.settings.normalize_advantages:
            advantages = advantages / (advantages.square().mean().sqrt() + 1e-8)
        return advantages.float()

    def after(self, batch: Batch, names: Sequence[str]) -> "_Learner":
        """Return a copy after an update on `batch`; this one stays unchanged."""
        learner = copy.copy(self)
        # one copy of both, so that the new Adam refers to the new policy's weights
        learner.policy, learner.adam = copy.deepcopy((self.policy, self.adam))
        learner._update(batch, names)
        return learner

    def _update(self, batch: Batch, names: Sequence[str]) -> None:
        s = self.settings
        indices = torch.tensor([sample.indices for sample in batch.samples])
        rewards = [sample.reward for sample in batch.samples]
        advantages = self._advantages(rewards)
        log_probs, entropy = self._evaluate(indices)
        old_log_probs = log_probs.detach()
        rows = torch.arange(len(rewards))
        minibatches = rows.chunk(-(-len(rewards) // s.minibatch_size)) * s.epochs
        for step, minibatch in enumerate(minibatches):
            if step or len(minibatch) < len(rewards):  # the first step on a whole batch reuses those above
                log_probs, entropy = self._evaluate(indices[minibatch])
            old, gains = old_log_probs[minibatch], advantages[minibatch]
            loss = ppo_loss(log_probs, old, gains, entropy, clip=s.clip, entropy_weight=s.entropy_weight)
            self.adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.adam.step()
        with torch.no_grad():
            log_probs, entropy = self._evaluate(indices)
        assert self.baseline is not None
        log_ratio = (log_probs - old_log_probs).double()
        update = PPOUpdate(
            batch=batch.number,
            trials=len(rewards),
            mean_reward=math.fsum(rewards) / len(rewards),
            baseline=self.baseline,
            kl=(log_ratio.expm1() - log_ratio).mean().item(),
            clip_fraction=(log_ratio.expm1().abs() > s.clip).double().mean().item(),
            entropy_per_decision=dict(zip(names, entropy.mean(0).tolist(), strict=True)),
        )
        self.history = (*self.history, update)


class PPOSampler(ClosedBatchSampler):
    """RNN controller for any all-categorical Optuna study; see `ClosedBatchSampler` for data it learns from and errors.

    The state is a function of the arguments and of the finished trials of earlier batches, so a fresh process replays
    all updates. The sampler computes on one CPU thread whatever torch's setting, and uses no global random state.

    Args:
        space, seed, batch_size, reward: as in `ClosedBatchSampler`.
        hidden_size: units of the LSTM.
        init_range: weights of the LSTM start uniform in plus or minus this.
        learning_rate: learning rate of Adam.
        entropy_weight: weight of the bonus that keeps the policy from settling early.
        baseline_decay: decay of the moving average of rewards.
        clip: PPO's clip range.
        epochs: passes over a batch.
        minibatch_size: maximum number of finished models a step, in order of number.
        normalize_advantages: whether to divide advantages by their root mean square.
    """

    def __init__(
        self,
        space: Mapping[str, CategoricalDistribution],
        *,
        seed: int,
        batch_size: int = 20,
        reward: Reward | None = None,
        hidden_size: int = 100,
        init_range: float = 0.1,
        learning_rate: float = 0.00035,
        entropy_weight: float = 1e-5,
        baseline_decay: float = 0.95,
        clip: float = 0.2,
        epochs: int = 4,
        minibatch_size: int = 20,
        normalize_advantages: bool = True,
    ) -> None:
        super().__init__(space, seed=seed, batch_size=batch_size, reward=reward)
        require_int("hidden_size", hidden_size, 1)
        require_int("epochs", epochs, 1)
        require_int("minibatch_size", minibatch_size, 1)
        require_number("init_range", init_range, 0, 10)
        require_number("learning_rate", learning_rate, 0, 1)
        require_number("entropy_weight", entropy_weight, 0, 1000)
        require_number("baseline_decay", baseline_decay, 0, 1)
        require_number("clip", clip, 0, 1)
        self._settings = _Settings(
            learning_rate=learning_rate,
            entropy_weight=entropy_weight,
            baseline_decay=baseline_decay,
            clip=clip,
            epochs=epochs,
            minibatch_size=minibatch_size,
            normalize_advantages=normalize_advantages,
        )
        self._hidden_size = hidden_size
        self._init_range = init_range
        self._states: list[tuple[tuple[Batch, ...], _Learner]] = []  # the last few, by the batches they have learned
        self._drawn: tuple[_Learner, int, list[list[int]]] | None = None

    @property
    def history(self) -> tuple[PPOUpdate, ...]:
        """All updates so far, oldest first."""
        return self._states[-1][1].history if self._states else ()

    def diagnostics(self) -> dict[str, Any]:
        """Return the last `PPOUpdate` as a dict; {} before the first."""
        return asdict(self.history[-1]) if self.history else {}

    def _learn(self, batches: Sequence[Batch]) -> None:
        wanted = tuple(batches)
        while self._states and self._states[-1][0] != wanted[: len(self._states[-1][0])]:
            self._states.pop()
        with one_thread():
            if not self._states:
                self._states.append(((), self._new_learner()))
            learned, learner = self._states[-1]
            for batch in wanted[len(learned) :]:
                learned = (*learned, batch)
                if batch.samples:
                    learner = learner.after(batch, tuple(self._space))
                self._states.append((learned, learner))
        del self._states[:-_KEPT_STATES]

    def _new_learner(self) -> _Learner:
        policy = Policy(
            self._choices,
            hidden_size=self._hidden_size,
            init_range=self._init_range,
            seed=derived_seed(self._seed),
        )
        return _Learner(policy, self._settings)

    def _choose(self, number: int) -> Sequence[int]:
        # A whole batch is drawn together, each trial from its own random numbers, in as many LSTM steps as one trial.
        learner, batch = self._states[-1][1], number // self._batch_size
        if self._drawn is None or self._drawn[0] is not learner or self._drawn[1] != batch:
            numbers = range(batch * self._batch_size, (batch + 1) * self._batch_size)
            uniforms = [np.random.default_rng([self._seed, n]).random(len(self._choices)) for n in numbers]
            with one_thread():
                drawn = learner.policy.sample(torch.from_numpy(np.stack(uniforms)))
            self._drawn = learner, batch, drawn.tolist()
        return self._drawn[2][number % self._batch_size]
