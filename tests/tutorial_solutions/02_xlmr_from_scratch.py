# ruff: noqa: F821
# (the other names are those of the notebook, in whose cells this runs)
def causal_attention(q, k, v):
    T = q.shape[2]
    s = q @ k.transpose(2, 3) / q.shape[3] ** 0.5                        # (B, H, T, T)
    s = s.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
    return s.softmax(-1) @ v
# ---
def crossover(D, ffn):
    return 2 * D + ffn  # 4 T² D >= 8 T D² + 4 T D ffn
# ---
def log_probability(h, token, product, V):
    top = torch.full((len(h),), -torch.inf)                              # (B,)
    total = torch.zeros(len(h))                                          # (B,)
    chosen = torch.zeros(len(h))                                         # (B,)
    for start in range(0, V, 1000):
        stop = min(start + 1000, V)
        part = product(h, start, stop)                                   # (B, up to 1000)
        larger = torch.maximum(top, part.max(1).values)
        total = total * (top - larger).exp() + (part - larger[:, None]).exp().sum(1)
        top = larger
        inside = (start <= token) & (token < stop)
        place = (token - start).clamp(0, stop - start - 1)               # (B,)
        chosen = torch.where(inside, part.gather(1, place[:, None])[:, 0], chosen)
    return chosen - top - total.log()
