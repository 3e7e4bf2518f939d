# ruff: noqa: F821
# (the other names are those of the notebook, in whose cells this runs)
def sharpened(similarity, ids, tau):
    w = (similarity / tau).softmax(1)                                    # (W, K)
    return torch.einsum("wk,wkd->wd", w, E[ids]), (w * bias[ids]).sum(1)
# ---
def centred_nearest(b, k):
    return nearest(b - centre, E - centre, k, tokenizer)
# ---
def mean_calibrated(scores, unlabelled):
    return scores - unlabelled.mean(0)
