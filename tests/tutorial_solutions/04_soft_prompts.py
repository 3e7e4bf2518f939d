# ruff: noqa: F821
# (the other names are those of the notebook, in whose cells this runs)
def both_sides(texts, n_front, n_behind, max_tokens):
    first = tokenizer.mask + 1
    virtual = list(range(first, first + n_front + n_behind))
    front = [BOS] + virtual[:n_front] + [tokenizer.mask]
    behind = virtual[n_front:] + [EOS]
    room = max_tokens - len(front) - len(behind)
    return [front + ids[:room] + behind for ids in tokenizer.encode(list(texts))]
# ---
def gradient_of_each_text(ids, labels, prompt):
    B, P = len(ids), len(prompt)
    copies = prompt.detach().repeat(B, 1, 1).requires_grad_()                       # (B, P, D)
    slot = ids - (tokenizer.mask + 1)                                               # (B, T)
    row = slot.clamp(min=0) + P * torch.arange(B)[:, None]                          # (B, T)
    vectors = F.embedding(row, copies.flatten(0, 1))                                # (B, T, D)
    words = encoder.word(ids.clamp(max=tokenizer.mask))                             # (B, T, D)
    inputs_embeds = torch.where((slot >= 0)[..., None], vectors, words)             # (B, T, D)
    x = encoder(inputs_embeds, attention_mask=ids != PAD)                           # (B, T, D)
    mask_position = (ids == tokenizer.mask).int().argmax(1)                         # (B,)
    h = encoder.head_hidden(x[torch.arange(B), mask_position])                      # (B, D)
    # the sum: each copy meets its own text's loss only
    loss = F.cross_entropy(verbalizer.scores(h), labels, reduction="sum")
    return torch.autograd.grad(loss, copies)[0]
# ---
def ensemble(prompts, template, texts):
    scores = [scores_of(vectors, template, texts) for vectors in prompts]
    return torch.stack(scores).softmax(2).mean(0)
