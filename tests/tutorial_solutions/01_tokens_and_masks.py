# ruff: noqa: F821
# (the other names are those of the notebook, in whose cells this runs)
def best_cut(text, score, longest):
    best = [0.0] + [-math.inf] * len(text)
    start = [0] * (len(text) + 1)
    for e in range(1, len(text) + 1):
        for b in range(max(0, e - longest), e):
            s = best[b] + score.get(text[b:e], -math.inf)
            if s > best[e]:
                best[e] = s
                start[e] = b
    pieces = []
    e = len(text)
    while e:
        pieces.insert(0, text[start[e]:e])
        e = start[e]
    return pieces
# ---
def encode_with_mask(sp, before, after):
    def ids(text):
        return [3 if i == sp.unk_id() else i + 1 for i in sp.encode(text)]
    return [0] + ids(before) + [sp.get_piece_size() + 1] + ids(after) + [2]
# ---
def pseudo_log_likelihood(text):
    ids = tokenizer.encode(text)
    sequences = [[BOS] + ids[:t] + [tokenizer.mask] + ids[t + 1:] + [EOS] for t in range(len(ids))]
    log_p = logits_at_mask(sequences).log_softmax(1)                     # (T, V)
    return sum(log_p[t, i].item() for t, i in enumerate(ids))
