def update_q(q, loss, present, eta):
    new = q.clone()
    moved = q[present] * (eta * loss[present]).exp()
    new[present] = moved / moved.sum() * q[present].sum()
    return new
# ---
def resting_place(a, b):
    # sqrt(a) theta = sqrt(b) (1 - theta)
    theta = b ** 0.5 / (a ** 0.5 + b ** 0.5)
    # q_A a theta = (1 - q_A) b (1 - theta)
    q_A = b * (1 - theta) / (a * theta + b * (1 - theta))
    return theta, q_A
# ---
def tilted(tau):
    def weigh(loss_g, count):
        return (count.log() + loss_g / tau).softmax(0)
    return weigh
