"""Group DRO (Sagawa et al., ICLR 2020): minimise the worst group's loss instead of the mean.

Online algorithm (their Algorithm 1), with one weight q_g a group, kept as a logarithm:

    q_g <- q_g exp(eta (loss_g + C / sqrt(n_g)));   q <- q / sum(q);   step on  sum_g q_g loss_g

train.py has the loop; ERM, the plain mean, is the same loop with q_g = the group's share of the batch.
"""
import torch


def group_losses(losses, groups, G):
    """losses: (B,), groups: (B,) in 0 .. G-1 -> mean loss of each group (G,), 0 where absent, and its count (G,)."""
    count = torch.bincount(groups, minlength=G)                                          # (G,)
    total = losses.new_zeros(G).index_add(0, groups, losses)                             # (G,)
    return total / count.clamp(min=1), count


def update_log_q(log_q, group_loss, present, eta, adjustment):
    """One update of the group weights -> new log q (G,), a distribution if log_q was one.

    present: (G,) bool. A group absent from the batch has no loss to show: it keeps its weight, and the present ones share
    the mass that they had. (Taking its loss for 0 instead would let rare groups fade away.)
    adjustment: (G,) C / sqrt(n_g), the generalisation adjustment. The losses are read, never changed.
    """
    moved = log_q + eta * (group_loss.detach() + adjustment)
    shift = log_q[present].logsumexp(0) - moved[present].logsumexp(0)
    return torch.where(present, moved + shift, log_q)
