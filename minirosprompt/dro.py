"""Group DRO (Sagawa et al., ICLR 2020): minimise the worst group's loss instead of the mean.

Online algorithm (their Algorithm 1, with the adjustment of their section 3.3), with one weight q_g
a group, kept as a logarithm:

    q_g <- q_g exp(eta (loss_g + C / sqrt(n_g)))
    q   <- q / sum(q)
    step on  sum_g q_g loss_g        (a group that is absent from the batch adds nothing)

train.py has the loop.
"""
import torch


def group_losses(losses, groups, G):
    """Mean loss of each group, (G,), 0 for an absent one; and how often it is there, (G,).

    losses: (B,), one a text; groups: (B,) its group, 0 .. G-1.
    """
    # A batch holds few texts, so a group may be absent: 0 / 1 then, not 0 / 0.
    count = losses.new_zeros(G).index_add(0, groups, torch.ones_like(losses))       # (G,)
    total = losses.new_zeros(G).index_add(0, groups, losses)            # (G,)
    return total / count.clamp(min=1), count


def update_log_q(log_q, group_loss, present, eta, adjustment):
    """One update of the group weights -> new log q (G,), a distribution if log_q was one.

    group_loss: (G,); it is read, never changed.
    present: (G,) bool. A group that is absent from the batch keeps its weight, and the others share
    the mass that they had. (Taking its loss for 0 instead would let rare groups fade away.)
    adjustment: (G,) C / sqrt(n_g), the generalisation adjustment.
    """
    # In logarithms nothing underflows, however long a group does well. detach: q is a constant
    # for the gradient, which is that of the weighted loss alone.
    moved = log_q + eta * (group_loss.detach() + adjustment)            # (G,)
    # The present groups' new weights must sum to what their old ones did.
    old = log_q.where(present, -torch.inf).logsumexp(0)
    new = moved.where(present, -torch.inf).logsumexp(0)
    return torch.where(present, moved + (old - new), log_q)
