"""RNN that takes the decisions of a space one after the other.

Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition" (NASNet, CVPR 2018, arXiv:1707.07012),
appendix A: a one-layer LSTM with 100 hidden units, weights uniform in +-0.1, a softmax per decision. As in Zoph and Le
(ICLR 2017, arXiv:1611.01578), each choice is the input of the next step.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NEVER = -1e9  # a logit for missing choices: exp gives exactly 0, and there is no infinity to become NaN


class Policy(nn.Module):
    """Probabilities over sequences of D decisions, where decision d has `choices[d]` choices.

    The policy neither reads nor changes global random state.

    Args:
        choices: number of choices of each decision, each 1 or more.
        hidden_size: units of the LSTM, and size of an embedding.
        init_range: weights and biases start uniform in plus or minus this.
        seed: random seed of those weights.
    """

    def __init__(self, choices: Sequence[int], *, hidden_size: int, init_range: float, seed: int) -> None:
        super().__init__()
        rows = sum(choices)
        # row 0 is the input of the first step; then comes a row for every choice of every decision
        self.embedding = nn.Parameter(torch.empty(1 + rows, hidden_size))
        # on `meta` first, or torch would draw the weights from its global generator
        lstm = nn.LSTM(hidden_size, hidden_size, batch_first=True, device="meta")
        self.lstm = lstm.to_empty(device="cpu")
        self.head_weight = nn.Parameter(torch.empty(rows, hidden_size))
        self.head_bias = nn.Parameter(torch.empty(rows))
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -init_range, init_range, generator=generator)
        first = torch.tensor(list(itertools.accumulate(choices[:-1], initial=0)))
        place = torch.arange(max(choices))
        self.first_row: Tensor
        self.is_choice: Tensor
        self.head_rows: Tensor
        self.register_buffer("first_row", first)  # (D,) first row of each decision among the rows of the heads
        self.register_buffer("is_choice", place < torch.tensor(list(choices))[:, None])  # (D, C), C the most choices
        self.register_buffer("head_rows", torch.where(self.is_choice, first[:, None] + place, 0))  # (D, C)

    def forward(self, indices: Tensor) -> Tensor:
        """Return (N, D, C) log-probabilities of (N, D) choices given those before; exp is 0 past the last choice."""
        fed = torch.cat([torch.zeros_like(indices[:, :1]), 1 + self.first_row[:-1] + indices[:, :-1]], 1)
        hidden, _ = self.lstm(F.embedding(fed, self.embedding))  # its gradient is faster than that of an index
        heads = F.embedding(self.head_rows, self.head_weight)
        logits = torch.einsum("ndh,dch->ndc", hidden, heads) + self.head_bias[self.head_rows]
        return logits.masked_fill(~self.is_choice, _NEVER).log_softmax(-1)

    @torch.no_grad()
    def sample(self, uniforms: Tensor) -> Tensor:
        """Return the (N, D) choices in whose share of [0, 1) the (N, D) `uniforms` fall.

        The method writes out the LSTM, as a call for every step costs five times its arithmetic.
        """
        input_weight, hidden_weight, input_bias, hidden_bias = self.lstm.all_weights[0]
        of_input = self.embedding @ input_weight.T + (input_bias + hidden_bias)  # for any row that may be the input
        of_hidden = hidden_weight.T
        count, size = len(uniforms), len(of_hidden)
        chosen = torch.zeros(uniforms.shape, dtype=torch.long)
        fed = torch.zeros(count, dtype=torch.long)
        hidden = cell = torch.zeros(count, size)
        firsts = self.first_row.tolist()
        for d, (first, end) in enumerate(zip(firsts, [*firsts[1:], len(self.head_weight)], strict=True)):
            gates = torch.addmm(of_input[fed], hidden, of_hidden)
            opened, forgotten, _, exposed = gates.sigmoid().chunk(4, 1)
            cell = forgotten * cell + opened * gates[:, 2 * size : 3 * size].tanh()
            hidden = exposed * cell.tanh()
            logits = torch.addmm(self.head_bias[first:end], hidden, self.head_weight[first:end].T)
            # the last bound is 1 except for rounding, so it is left out
            upper = logits.softmax(-1).cumsum(-1)[:, :-1]
            chosen[:, d] = (uniforms[:, d, None] >= upper).sum(-1)
            fed = 1 + first + chosen[:, d]
        return chosen
