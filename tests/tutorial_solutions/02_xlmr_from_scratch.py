def causal_attention(q, k, v):
    """q, k, v: (B, H, T, d) -> (B, H, T, d): as in section 3, but token i reads tokens 0 ... i only."""
    T = q.shape[2]
    s = q @ k.transpose(2, 3) / q.shape[3] ** 0.5                        # (B, H, T, T)
    s = s.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
    return s.softmax(-1) @ v
# ---
def crossover(D, ffn):
    """-> the smallest T (an int) at which scores and mixing take at least as many FLOPs as projections and FFN together."""
    return 2 * D + ffn  # 4 T² D >= 8 T D² + 4 T D ffn
# ---
def log_probability(h, token, product, V):
    """h: (B, D), token: (B,) ids; product(h, start, stop) -> logits (B, stop - start) -> (B,) log p(token | h)."""
    top, total, chosen = torch.full((len(h),), -torch.inf), torch.zeros(len(h)), torch.zeros(len(h))
    for start in range(0, V, 1000):
        stop = min(start + 1000, V)
        part = product(h, start, stop)                                   # (B, up to 1000)
        larger = torch.maximum(top, part.max(1).values)
        total = total * (top - larger).exp() + (part - larger[:, None]).exp().sum(1)
        top = larger
        inside = (start <= token) & (token < stop)
        chosen = torch.where(inside, part.gather(1, (token - start).clamp(0, stop - start - 1)[:, None])[:, 0], chosen)
    return chosen - top - total.log()
