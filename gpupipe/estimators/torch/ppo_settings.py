"""Settings of proximal policy optimisation with an LSTM; no Torch."""

from __future__ import annotations

from dataclasses import dataclass

COUNTS = ("n_environments", "rollout", "sequence", "epochs", "minibatch", "size", "layers")


@dataclass(frozen=True)
class PPOSettings:
    """The policy's size, and how it is trained.

    >>> PPOSettings().samples, PPOSettings().minibatch_sequences
    (2048, 16)
    >>> PPOSettings(size=256, layers=2).problem()
    >>> PPOSettings(sequence=48).problem()
    ('sequence', 'a divisor of rollout, 64')
    """

    MAY_BE_ZERO = ("entropy", "value_clip", "weight_decay", "gae_lambda", "gamma", "value_gradient")

    learning_rate: float = 3e-4  # of AdamW
    n_environments: int = 32  # that step together
    rollout: int = 64  # steps of each environment between two updates
    sequence: int = 32  # steps through which gradients flow back; a rollout is cut into sequences of this length
    epochs: int = 8  # times that an update trains on all its samples
    minibatch: int = 512  # samples of one gradient step: whole sequences
    gamma: float = 0.99  # discount of a reward one step later
    gae_lambda: float = 0.95  # weight of longer returns: at 0 the value after one step counts, at 1 rewards alone
    clip: float = 0.2  # how far the probability of an action may move in an update, as a share, and still be rewarded
    value_clip: float = 0.2  # how far a value may move in an update and still be rewarded; 0: any distance
    entropy: float = 0.01  # weight of the entropy of the actions, which keeps them from becoming certain too early
    value_weight: float = 0.5  # of the squared error of values beside the loss of the policy
    value_gradient: float = 0.0  # share of the value's gradient that reaches the LSTM: 0 where returns are large
    max_gradient: float = 0.5  # gradients of a larger norm are scaled down to it
    weight_decay: float = 0.01  # of AdamW: the share of each weight that a step of rate 1 takes away
    size: int = 128  # of the LSTM; the original way has 256
    layers: int = 1  # of the LSTM; the original way has 2
    heads: tuple[int, ...] = (64, 32)  # widths of the layers between the LSTM and the logits, and the value

    @property
    def samples(self) -> int:
        """Steps of all environments in an update."""
        return self.n_environments * self.rollout

    @property
    def minibatch_sequences(self) -> int:
        """Sequences of one gradient step."""
        return self.minibatch // self.sequence

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it."""
        for name in COUNTS:
            if getattr(self, name) < 1:
                return name, "1 or more"
        if len(self.heads) != 2 or min(self.heads) < 1:
            return "heads", "two widths, as 64,32"
        if self.rollout % self.sequence:
            return "sequence", f"a divisor of rollout, {self.rollout}"
        if self.minibatch % self.sequence:
            return "minibatch", f"a multiple of sequence, {self.sequence}"
        if self.samples % self.minibatch:
            return "minibatch", f"a divisor of n_environments * rollout, {self.samples}"
        return None
