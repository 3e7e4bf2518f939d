def language_shares(sizes, alpha):
    weight = sizes ** alpha
    return weight / weight.sum()
# ---
def whole_words(drawn, ids, starts):
    word = starts[ids].cumsum(1)                                         # (B, T)
    same = word[:, :, None] == word[:, None, :]                          # (B, T, T)
    return (same & drawn[:, None, :]).any(2)
# ---
def learnt_for_good(tokens, accuracy, level):
    found = None
    for count, value in zip(tokens, accuracy):
        if value < level:
            found = None
        elif found is None:
            found = count
    return found
