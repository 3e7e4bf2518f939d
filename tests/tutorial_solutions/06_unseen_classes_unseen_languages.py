# ruff: noqa: F821
# (the other names are those of the notebook, in whose cells this runs)
def gain_interval(right_a, right_b, clusters, repeats=2000, seed=0):
    difference = right_a.astype(float) - right_b
    return np.percentile(draws(difference, clusters, repeats, seed), [2.5, 97.5])
# ---
def area(scores, labels, is_seen):
    of_seen = is_seen[labels]                                                       # (N,)
    margin = scores[:, is_seen].max(1) - scores[:, ~is_seen].max(1)                 # (N,)
    # among the classes of its own kind
    own_kind = np.where(of_seen[:, None] == is_seen, scores, -np.inf)               # (N, C)
    right = own_kind.argmax(1) == labels                                            # (N,)
    y = total = 0.0
    for i in np.argsort(margin):
        if of_seen[i]:
            total += y * right[i] / of_seen.sum()
        else:
            y += right[i] / (~of_seen).sum()
    return total
# ---
def classify(texts, label_words):
    template = Template(settings.template, tokenizer, len(prompt), encoder.config.max_tokens)
    verbalizer = Verbalizer(encoder, tokenizer, label_words, settings.k, settings.combine)
    model = PromptedEncoder(encoder, tokenizer.mask, prompt)
    return verbalizer.scores(model(pad(template.encode(texts))))
