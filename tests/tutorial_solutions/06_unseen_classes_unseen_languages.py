def gain_interval(right_a, right_b, clusters, repeats=2000, seed=0):
    difference = right_a.astype(float) - right_b
    return np.percentile(draws(difference, clusters, repeats, seed), [2.5, 97.5])
# ---
def area(scores, gold, is_seen):
    of_seen = is_seen[gold]
    margin = scores[:, is_seen].max(1) - scores[:, ~is_seen].max(1)
    right = np.where(of_seen[:, None] == is_seen, scores, -np.inf).argmax(1) == gold  # among the classes of its own kind
    y = total = 0.0
    for i in np.argsort(margin):
        if of_seen[i]:
            total += y * right[i] / of_seen.sum()
        else:
            y += right[i] / (~of_seen).sum()
    return total
# ---
def classify(texts, label_words):
    template, verbalizer = reader.template(len(prompt)), reader.verbalizer(label_words)
    model = PromptedEncoder(reader.encoder, reader.tokenizer.mask, prompt)
    return verbalizer.scores(model(pad(template.encode(texts))))
