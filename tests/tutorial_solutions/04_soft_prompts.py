def both_sides(texts, n_front, n_behind, max_tokens):
    """texts: list of B strings -> list of B lists of ids, SLOT where a prompt vector goes."""
    front = [BOS] + [SLOT] * n_front + [tokenizer.mask]
    behind = [SLOT] * n_behind + [EOS]
    room = max_tokens - len(front) - len(behind)
    return [front + ids[:room] + behind for ids in tokenizer.encode(list(texts))]
# ---
def gradient_of_each_text(ids, gold, prompt):
    """ids: (B, T), gold: (B,), prompt: (P, D) -> (B, P, D), row b the gradient of text b's cross-entropy by the prompt"""
    copies = prompt.detach().repeat(len(ids), 1, 1).requires_grad_()                # (B, P, D)
    words = encoder.word(ids.clamp(min=0))                                          # (B, T, D)
    words = words.masked_scatter((ids == SLOT)[..., None], copies.flatten(0, 1))
    x = encoder(words, real=ids != PAD)                                             # (B, T, D)
    at = (ids == tokenizer.mask).int().argmax(1)                                    # (B,)
    h = encoder.head_hidden(x[torch.arange(len(ids)), at])                          # (B, D)
    loss = F.cross_entropy(verbalizer.scores(h), gold, reduction="sum")             # the sum: each copy meets its own text's loss only
    return torch.autograd.grad(loss, copies)[0]
# ---
def ensemble(prompts, template, texts):
    """prompts: list of (P, D) -> probabilities (N, C). Use `score`, `PromptedEncoder` and `verbalizer` as on_dev does."""
    scores = [score(PromptedEncoder(encoder, tokenizer.mask, vectors), verbalizer, template, texts) for vectors in prompts]
    return torch.stack(scores).softmax(2).mean(0)
