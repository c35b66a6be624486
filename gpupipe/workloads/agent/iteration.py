"""An iteration of the walk-forward: train candidates, compare them on validation, test the best on sealed bars."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.estimators.torch.checkpoint import Checkpoint
from gpupipe.estimators.torch.policy_weights import PolicyWeights
from gpupipe.runtime.device import torch_on
from gpupipe.workloads.agent.cache import CacheCounts, EnvironmentCache
from gpupipe.workloads.agent.episodes_played import play, play_step_by_step
from gpupipe.workloads.agent.market import ACTIONS, Environments, Market
from gpupipe.workloads.agent.schedule import Values, timesteps
from gpupipe.workloads.agent.windows import Iteration, Rows

if TYPE_CHECKING:
    from gpupipe.workloads.agent.candidate import Candidate

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class IterationResult:
    """What an iteration came to.

    policy: arrays of the chosen policy, by name.  scaler: of its observations, as `WindowScaler.as_dict` gives it.
    positions: int8 (n_test,), decided in each row of the test; flat in its last row, so that tests do not overlap.
    candidates: what each candidate did, as JSON holds it.  chosen: the number of the best.
    counts: of the seven optimisations.  seconds: by part.  clock: seconds at each evaluation of the chosen candidate.
        They differ from run to run, and nothing depends on them.

        >>> candidates = [{"score": 0.01}, {"score": 0.03}]
        >>> IterationResult({}, {}, np.int8([1, 0]), candidates, 1, {}).score
        0.03
    """

    policy: Arrays
    scaler: Mapping[str, Any]
    positions: np.ndarray
    candidates: Sequence[Mapping[str, Any]]
    chosen: int
    counts: Mapping[str, Any]
    seconds: Mapping[str, float] = field(default_factory=dict)
    clock: Sequence[float] = ()

    @property
    def score(self) -> float:
        """The validation score of the chosen policy: the mean log-growth of an episode."""
        return float(self.candidates[self.chosen]["score"])


def run(
    iteration: Iteration,
    settings: Config,
    cache: EnvironmentCache,
    before: Arrays | None,
    fit: FitContext,
    threads: int,
    counts: CacheCounts,
) -> IterationResult:
    """Train the candidates of an iteration, choose one by validation, and test it.

    before: the policy of the iteration before, which candidates start from; None: they start from nothing.
    fit: where candidates keep their progress.  threads: to use; their number changes no byte of the result.
    counts: of requests to the cache, to which those of the iteration are added.
    """
    agent = settings.agent
    budget = timesteps(agent.total_timesteps, agent.min_timesteps, iteration.number, agent.adaptive_timesteps)
    at_once = max(1, min(agent.candidates, threads))
    # With a cache, the key of the iteration has asked for its market before.
    market = market_of(iteration, cache, CacheCounts() if cache.on else counts)
    each = max(1, threads // at_once)
    work = functools.partial(_train, iteration, settings, (cache, counts), before, fit, budget, each)
    # With the context of this thread, in which its stage is named.
    contexts = [contextvars.copy_context() for _ in range(agent.candidates)]
    with ThreadPoolExecutor(at_once, "candidate") as pool:
        trained = list(pool.map(lambda number: contexts[number].run(work, number), range(agent.candidates)))
    policies = [PolicyWeights.of(candidate.policy) for candidate in trained]
    began = time.perf_counter()
    scores = compare(policies, market, iteration.validation, agent.validation_episodes, agent.fast_comparison)
    seconds = {"comparison": time.perf_counter() - began}
    seconds |= {"environment": counts.seconds, "environment_saved": counts.saved}
    chosen = int(np.argmax(scores))
    for name in ("training", "evaluation"):
        seconds[name] = sum(candidate.progress.seconds[name] for candidate in trained)
    return IterationResult(
        policy=trained[chosen].policy,
        scaler=market.scaler.as_dict(),
        positions=sealed_positions(policies[chosen], market, iteration.test),
        candidates=[_described(candidate) for candidate in trained],
        chosen=chosen,
        counts={
            "budget": budget,
            "base": agent.total_timesteps,
            "warm": before is not None,
            "cache_asked": counts.asked,
            "cache_found": counts.found,
        },
        seconds=seconds,
        clock=tuple(trained[chosen].progress.clock),
    )


def market_of(iteration: Iteration, cache: EnvironmentCache, counts: CacheCounts) -> Market:
    """The market of an iteration: its features are scaled by the bars that it trains on."""
    return cache.market(iteration.train, iteration.test.end, counts)


def compare(
    policies: Sequence[PolicyWeights], market: Market, validation: Rows, n_episodes: int, fast: bool
) -> list[float]:
    """The score of each policy: its mean log-growth over the validation episodes, played greedily, after costs.

    fast: all policies on all episodes in one call; else one step of one episode after the other. Both give the same
    scores, to the last bit.
    """
    parts = validation.parts(min(n_episodes, validation.n // 2))  # an episode has two rows or more
    episodes = [(part.begin, part.end - 1) for part in parts]
    played = (play if fast else play_step_by_step)(policies, market, episodes)
    return [float(score) for score in played.growth.mean(axis=1)]


def sealed_positions(policy: PolicyWeights, market: Market, test: Rows) -> np.ndarray:
    """int8 (n_test,): the positions that a policy decides in a test, from a flat start; flat in the last row.

    A position of the last row would be filled in the next test, whose policy begins flat.
    """
    positions = np.zeros(test.n, np.int8)
    played = play([policy], market, [(test.begin, test.end - 1)])
    positions[: test.n - 1] = played.positions[0, 0]
    positions[int(played.steps[0, 0]) :] = 0  # after a drawdown stop
    return positions


def _train(
    iteration: Iteration,
    settings: Config,
    caching: tuple[EnvironmentCache, CacheCounts],
    before: Arrays | None,
    fit: FitContext,
    budget: int,
    threads: int,
    number: int,
) -> Candidate:
    """Train one candidate."""
    from gpupipe.estimators.torch.recurrent_ppo import Trainer
    from gpupipe.estimators.torch.shards import seed_of
    from gpupipe.workloads.agent import candidate

    agent, ppo = settings.agent, settings.ppo
    market, seed = market_of(iteration, *caching), seed_of(settings.seed, iteration.number, number)
    environments = Environments(
        market, ppo.n_environments, (iteration.train.begin, iteration.train.end - 1), agent.steps_of_episode, seed
    )
    rate = ppo.learning_rate * (agent.warm_rate if before is not None else 1.0)
    policy = None if before is None else _policy(before, market, settings)
    own, kind = dataclasses.replace(ppo, learning_rate=rate), market.device.kind
    trainer = Trainer(environments, own, seed, policy, threads=threads, torch_device=torch_on(kind))
    folder = None if fit.checkpoints is None else fit.checkpoints / f"candidate_{number}"
    checkpoint = None if folder is None else Checkpoint(folder, f"{fit.key}/{number}")

    def evaluate(arrays: Arrays) -> float:
        policies = [PolicyWeights.of(arrays)]
        return compare(policies, market, iteration.validation, agent.validation_episodes, agent.fast_comparison)[0]

    try:
        return candidate.train(
            number, trainer, agent, budget, Values(rate, ppo.epochs, ppo.entropy, ppo.clip), evaluate, checkpoint,
            _detail(fit, number, agent.candidates), before is not None,
        )  # fmt: skip
    finally:
        trainer.close()


def _policy(arrays: Arrays, market: Market, settings: Config) -> Any:
    """The policy of these arrays, as a module of Torch."""
    from gpupipe.estimators.torch.policy_files import StoredPolicy

    return StoredPolicy(arrays, market.observed, ACTIONS, settings.ppo).policy()


def _detail(fit: FitContext, number: int, n_candidates: int) -> Callable[[str], None]:
    name = f"candidate {number + 1} of {n_candidates}: " if n_candidates > 1 else ""
    return lambda text: fit.detail(name + text)


def _described(candidate: Candidate) -> dict[str, Any]:
    """What a candidate did, in the types of JSON; equal in every run of equal input."""
    progress = candidate.progress
    return {
        "number": candidate.number, "score": candidate.score, "steps": candidate.steps, "stopped": candidate.stopped,
        "evaluations": [{"steps": steps, "score": score} for steps, score in zip(progress.at, progress.scores,
                                                                                 strict=True)],
        "best": progress.best, "updates": progress.updates,
    }  # fmt: skip
