"""Group DRO: the update of q by hand, against the algorithm written plainly, and far out."""
import math

import pytest
import torch

from minirosprompt.dro import group_losses, update_log_q

ALL = torch.tensor([True, True])
HALVES = torch.tensor([0.5, 0.5]).log()  # log q


def test_group_losses_by_hand():
    loss, count = group_losses(torch.tensor([1.0, 2.0, 6.0, 4.0]), torch.tensor([0, 2, 2, 0]), 3)
    assert loss.tolist() == [2.5, 0, 4]
    assert count.tolist() == [2, 0, 2]


def test_two_groups_by_hand():
    """q = (1/2, 1/2), losses 1 and 2, eta = ln 2: q becomes (1 * 2^1, 1 * 2^2) / 6 = (1/3, 2/3)."""
    log_q = update_log_q(HALVES, torch.tensor([1.0, 2.0]), ALL, math.log(2), torch.zeros(2))
    torch.testing.assert_close(log_q.exp(), torch.tensor([1 / 3, 2 / 3]))


def test_adjustment_by_hand():
    """Equal losses, C / sqrt(n_g) = 1 and 2.

    The smaller group gains exactly as if its loss were larger by 1.
    """
    log_q = update_log_q(HALVES, torch.zeros(2), ALL, math.log(2), torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(log_q.exp(), torch.tensor([1 / 3, 2 / 3]))


def test_agrees_with_the_algorithm_written_plainly():
    generator = torch.Generator().manual_seed(0)
    q = [0.25] * 4
    log_q = torch.full((4,), 0.25).log()
    adjustment = torch.rand(4, generator=generator)
    for _ in range(50):
        losses = torch.rand(4, generator=generator)
        moved = []
        for weight, loss, more in zip(q, losses, adjustment):
            moved.append(weight * math.exp(0.3 * float(loss + more)))
        q = [weight / sum(moved) for weight in moved]
        log_q = update_log_q(log_q, losses, torch.ones(4, dtype=torch.bool), 0.3, adjustment)
        torch.testing.assert_close(log_q.exp(), torch.tensor(q), atol=1e-5, rtol=0)


def test_an_absent_group_keeps_its_weight():
    log_q = torch.tensor([0.2, 0.3, 0.5]).log()
    losses = torch.tensor([3.0, 0.0, 1.0])
    present = torch.tensor([True, False, True])
    for _ in range(500):
        log_q = update_log_q(log_q, losses, present, 0.1, torch.zeros(3))
    q = log_q.exp()
    assert abs(q[1] - 0.3) < 1e-4
    assert abs(q.sum() - 1) < 1e-4
    assert q[0] > 0.69


def test_q_stays_a_distribution_far_out():
    log_q = HALVES
    for _ in range(2000):
        log_q = update_log_q(log_q, torch.tensor([50.0, 0.0]), ALL, 1.0, torch.zeros(2))
    assert torch.isfinite(log_q).all()
    assert abs(log_q.exp().sum() - 1) < 1e-5


def test_losses_are_not_changed_and_carry_no_gradient_into_q():
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    log_q = update_log_q(torch.zeros(2) - math.log(2), losses, ALL, 0.5, torch.tensor([0.0, 3.0]))
    assert losses.tolist() == [1.0, 2.0]
    assert not log_q.requires_grad


def test_one_zero_in_the_adjustment_does_not_switch_off_the_rest():
    log_q = update_log_q(HALVES, torch.ones(2), ALL, 1.0, torch.tensor([0.0, 1.0]))
    assert log_q[1] - log_q[0] == pytest.approx(1.0)


def test_eta_zero_on_balanced_groups_is_erm():
    losses = torch.rand(12, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(12) % 3
    group_loss, count = group_losses(losses, groups, 3)
    thirds = torch.full((3,), 1 / 3).log()
    q = update_log_q(thirds, group_loss, count > 0, 0.0, torch.zeros(3)).exp()
    torch.testing.assert_close((q * group_loss).sum(), losses.mean())
    torch.testing.assert_close((count / 12 * group_loss).sum(), losses.mean())
