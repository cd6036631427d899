"""The speedrun's forward pass as its description says it: float64, one head, one pair of positions at a time.

Written from the description of the records, not from the model: no views of banks, no fused operations, dense masks.
"""

import math

import torch

EPS = 1.1920929e-7


def n(x, eps=EPS):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)


def sg(x):
    return 1 / (1 + torch.exp(-x))


class Reference:
    """`model`'s parameters, by name, in float64; `documents` gives the number of each token's document."""

    def __init__(self, model, ids, documents):
        self.c, self.p = model.config, {name: p.double() for name, p in model.named_parameters()}
        self.signs = model.signs.double() if self.c.bigram_signs else None
        self.ids, self.documents, self.T = ids.tolist(), documents.tolist(), len(ids)
        self.H, self.K, self.D = self.c.n_head, self.c.n_embd // self.c.n_head, self.c.n_embd
        self.L, self.V = self.c.n_layer, -(-self.c.vocab_size // 128) * 128
        self.short, self.long, self.scale = model.rotary.short, model.rotary.long, model.rotary.scale
        self.freq = model.rotary.frequencies.tolist()

    def starts(self, t):
        """Whether nothing comes before token t."""
        return t == 0 or (self.c.isolate_documents and self.documents[t] != self.documents[t - 1])

    # --- tables -----------------------------------------------------------------------------------------------------

    def embedding(self):
        e = torch.stack([self.p["embed"][i] for i in self.ids])
        if not self.c.smear:
            return e
        out, scale = e.clone(), self.scalar("smear")
        for t in range(self.T):
            if not self.starts(t):
                out[t] = e[t] + scale * sg(e[t, :12] @ self.p["smear_gate"][0]) * e[t - 1]
        return out

    def bigram(self):
        if not self.c.bigram_embeddings:
            return torch.zeros(self.T, self.D, dtype=torch.float64)
        table, out = self.p["bigram_embed"], torch.zeros(self.T, self.D, dtype=torch.float64)
        rows, width = table.shape
        for t, token in enumerate(self.ids):
            before = 0 if self.starts(t) else self.ids[t - 1]
            row = rows - 1 if self.starts(t) else ((36313 * token) ^ (27191 * before)) % (rows - 1)
            signs = self.signs[0 if self.starts(t) else (token ^ before) % 8192] if self.c.bigram_signs else 1
            out[t, :width] = table[row] * signs
        return out

    def value(self, j):
        return torch.stack([self.p["value_embed"][j * self.V + i] for i in self.ids])

    def scalar(self, name, i=0):
        """Of `scalars`: 68 has L residual, L pairs, L bigram, smear, backout, skip; later ones L pairs and the rest."""
        s, L = self.p["scalars"], self.L
        if not self.c.sublayer_lambdas:
            places = {"residual": i, "sa0": L + 2 * i, "sa1": L + 2 * i + 1, "bigram": 3 * L + i, "smear": 4 * L}
            places |= {"backout": 4 * L + 1, "skip": 4 * L + 2}
        else:
            places = {"sa0": 2 * i, "sa1": 2 * i + 1, "smear": 2 * L, "backout": 2 * L + 1}
            places["skip"] = 2 * L + (1 if self.c.mudd else 2)
        return s[places[name]]

    # --- attention --------------------------------------------------------------------------------------------------

    def turned(self, x, positions):
        """x (N, K): one head at these positions."""
        out = x.clone()
        for m, f in enumerate(self.freq):
            c, s = torch.cos(positions * f), torch.sin(positions * f)
            out[:, 2 * m] = c * x[:, 2 * m] + s * x[:, 2 * m + 1]
            out[:, 2 * m + 1] = c * x[:, 2 * m + 1] - s * x[:, 2 * m]
        return out

    def projections(self, a):
        """Q, K, V, O of a layer with attention, each (D, D)."""
        D, H = self.D, self.H
        if not self.c.pair_banks:
            return [self.p["attn"][a, r * D : (r + 1) * D] for r in range(4)]
        pairs = self.p["qk"][a * H : (a + 1) * H]  # H/2 pairs of Q, H/2 of K
        q, k = (torch.cat(list(pairs[s * H // 2 : (s + 1) * H // 2])) for s in (0, 1))
        return [q, k, self.p["vo"][2 * a], self.p["vo"][2 * a + 1]]

    def attention(self, plan, h, value=None, gate=None, xsa=None, dynamic=None):
        """h (T, D): the layer's normed input; value (T, D) is added to V; gate, xsa (T, H); dynamic: w1, w2 (T, H)."""
        T, H, K, i = self.T, self.H, self.K, plan.index
        wq, wk, wv, wo = self.projections(plan.slot)
        sa0, sa1 = self.scalar("sa0", i), self.scalar("sa1", i)
        q, k, v = ((h @ (sa0 * w).T).view(T, H, K) for w in (wq, wk, wv))
        q, k = n(q), n(k)
        if value is not None:
            v = v + value.view(T, H, K)
        w = (self.long if plan.long else self.short) if self.c.windows else T * 2
        y = torch.zeros(T, H, K, dtype=torch.float64)
        if plan.attention == "paired":
            for j in range(H // 2):  # positions 2t: head j, 2t + 1: head j + H/2
                place = [(t, j + half * (H // 2)) for t in range(T) for half in (0, 1)]
                angle = torch.tensor([2.0 * t + head % 2 for t, head in place], dtype=torch.float64)
                qs, ks, vs = (torch.stack([x[t, head] for t, head in place]) for x in (q, k, v))
                pattern = self.softmax(
                    self.turned(qs, angle), self.turned(ks, angle), w, [self.documents[t] for t, _ in place]
                )
                out = pattern @ vs
                for row, (t, head) in enumerate(place):
                    y[t, head] = out[row]
        else:
            patterns = []
            for head in range(H):
                qs, ks = (self.turned(x[:, head], torch.arange(T, dtype=torch.float64)) for x in (q, k))
                if plan.key_offset:
                    moved = ks.clone()
                    for t in range(T):
                        if not self.starts(t):
                            moved[t, K // 2 :] = ks[t - 1, K // 2 :]
                    ks = moved
                y[:, head] = self.softmax(qs, ks, w, self.documents) @ v[:, head]
                patterns.append(self.softmax(qs, ks, 111, self.documents))
            if dynamic is not None:
                w1, w2 = n(dynamic[0], 1e-6), dynamic[1]
                mixed = sum(w1[:, head, None] * pattern for head, pattern in enumerate(patterns))
                for head in range(H):
                    y[:, head] += w2[:, head, None] * (mixed @ v[:, head])
        if xsa is not None:
            unit = v / v.norm(dim=-1, keepdim=True)
            y = y - torch.tanh(xsa)[..., None] * (y * unit).sum(-1, keepdim=True) * unit
        if gate is not None:
            y = y * gate[..., None]
        return y.reshape(T, H * K) @ (sa1 * wo).T

    def softmax(self, q, k, w, documents):
        i = torch.arange(len(q))
        d = torch.tensor(documents)
        seen = (i[None] <= i[:, None]) & (i[:, None] - i[None] <= w) & (d[None] == d[:, None])
        return (q @ k.T * self.scale).masked_fill(~seen, -math.inf).softmax(-1)

    def gated_value(self, plan, h):
        if plan.value is None:
            return None
        ve = self.value(plan.value)
        if not self.c.value_gates:
            return ve
        seen = torch.cat([h[:, :6], ve[:, :6]], 1) if self.c.value_gate_token else h[:, :12]
        g = 2 * sg(seen @ self.p["ve_gate_bank"][plan.value].T)
        return (g[..., None] * ve.view(self.T, self.H, self.K)).reshape(self.T, self.D)

    def head_gate(self, plan, h):
        return sg(h[:, :12] @ self.p["attn_gate_bank"][plan.slot].T) if self.c.attention_gates else None

    def mlp(self, i, h):
        fc, proj = self.p["mlp"][i]
        return torch.relu(h @ fc.T) ** 2 @ proj

    def skip_gate(self, x0):
        return sg(self.scalar("skip")) * 2 * sg(x0[:, :12] @ self.p["skip_gate"][0])[:, None]

    # --- the layers -------------------------------------------------------------------------------------------------

    def logits(self):
        x0, xb = n(self.embedding()), self.bigram()
        x = self.later(x0, xb) if self.c.sublayer_lambdas else self.record_68(x0, xb)
        raw = n(x) @ self.p["lm_head"]
        return 23 * sg((raw + 5) / 7.5) if self.c.softcap else raw

    def record_68(self, x0, xb):
        x, after, places = x0, {}, self.c.places
        for plan in self.c.layers:
            i = plan.index
            if i == places.free and self.c.skip:
                x = x + self.skip_gate(x0) * after[places.skip_from]
            x0lam = self.p["x0_lambdas"][i] if self.c.x0_lambdas else 0
            x = self.scalar("residual", i) * x + x0lam * x0 + self.scalar("bigram", i) * xb
            if plan.attention is not None:
                h = n(x)
                x = x + self.attention(plan, h, self.gated_value(plan, h), self.head_gate(plan, h), self.xsa(plan))
            x = x + self.mlp(i, n(x))
            after[i] = x
        return x - self.scalar("backout") * after[places.backout] if self.c.backout else x

    def xsa(self, plan):
        if not self.c.xsa or plan.attention != "standard":
            return None
        return self.p["xsa_alphas"][plan.index].expand(self.T, self.H)

    def network(self, name, j, x, count, scale):
        w1, w2, b2 = (self.p[f"{name}_{part}"][j] for part in ("w1", "w2", "b2"))
        hidden = torch.nn.functional.gelu(x @ w1.T)
        return (hidden @ w2[:count].T + b2[:count]) * scale

    def token_gates(self, j, x):
        """What a network of record 85 says, in the order in which it says it: (name, layer) -> (T, …)."""
        middle, last = self.c.places.skip_from, self.L - 1
        mine = [p for p in self.c.layers if p.attention is not None and (p.index <= middle) == (j == 0)]
        xsa = [p.index for p in mine if p.attention == "standard" and p.index in self.c.places.gated_xsa]
        names = [("xsa", i, self.H) for i in xsa] + [("gate", p.index, self.H) for p in mine if p.long]
        names += [(what, p.index, 1) for p in mine if p.index != last for what in ("x0", "bigram")]
        names += [("skip", 0, 1)] if j else []
        names += [("w1", last, self.H), ("w2", last, self.H)] if j and self.c.dynamic_heads else []
        out, at = {}, 0
        values = self.network("mudd_gate", j, x, sum(size for *_, size in names), self.p["mudd_gate_scale"])
        for what, i, size in names:
            out[what, i], at = values[:, at : at + size], at + size
        return out

    def later(self, x0, xb):
        c, p, places, last = self.c, self.p, self.c.places, self.L - 1
        token = self.token_gates(0, x0) if c.mudd_gates else None
        bigram = lambda i: token["bigram", i] if token else p["bigram_lambdas"][i] if c.bigram_embeddings else 0
        x0lam = lambda i: token["x0", i] if token else p["x0_lambdas"][i] if c.x0_lambdas else 0
        post = p["post_lambdas"] if c.parallel_lanes else p["post_lambdas"][..., None].expand(-1, -1, 2)
        if c.drop_post_attention:
            post = post.clone()
            post[: places.backout, 0] = 1
        resid = p["resid_lambdas"]
        x = x0 + bigram(0) * xb
        start, after, z = x, {}, None
        for plan in c.layers:
            i, mu = plan.index, None
            if token and i == places.skip_from + 1:
                token = self.token_gates(1, x)
            if c.parallel_lanes and i == places.backout:
                z = x
            if plan.attention is None:
                gate = sg(self.scalar("skip")) * token["skip", 0] if token else self.skip_gate(x0)
                x = x + gate * after[places.skip_from]
                z = None if z is None else z + gate * after[places.skip_from]
            else:
                h = n(after[places.backout] if c.cached_attention and i > places.backout else x)
                if c.mudd and i == last:
                    mu = self.network("mudd", 0, x, 14, 0.1)[:, :, None].unbind(1)
                    lanes = torch.stack([mu[6], mu[7]], 1).repeat_interleave(self.H // 2, 1)
                    value = (lanes * self.value(plan.value).view(self.T, self.H, self.K)).reshape(self.T, self.D)
                    value = value + mu[0] * start + mu[1] * after[places.backout] + mu[2] * x
                    x = (1 + mu[5]) * x + mu[3] * start + mu[4] * after[places.backout]
                else:
                    value = self.gated_value(plan, h)
                xsa = token.get(("xsa", i)) if token else self.xsa(plan)
                gate = token.get(("gate", i)) if token else self.head_gate(plan, h)
                dynamic = (token["w1", i], token["w2", i]) if token and ("w1", i) in token else None
                out = self.attention(plan, h, value, gate, xsa, dynamic)
                if mu is not None:
                    x = mu[8] * x + mu[9] * out + mu[10] * start + mu[11] * xb
                else:
                    z = None if z is None else resid[i, 0] * z + post[i, 0, 1] * out
                    x = resid[i, 0] * x + post[i, 0, 0] * out + x0lam(i) * x0 + (bigram(i) * xb if i else 0)
            out = self.mlp(i, n(x if z is None else z))
            if mu is not None:
                x = mu[12] * x + mu[13] * out
            else:
                z = None if z is None else resid[i, 1] * z + post[i, 1, 1] * out
                x = resid[i, 1] * x + post[i, 1, 0] * out
            after[i] = x
        x = x if z is None else (x + z) / 2
        if c.mudd:
            mu = self.network("mudd", 1, x, 5, 0.1)[:, :, None].unbind(1)
            sources = (start, after[places.backout], after[last - 1], self.value(0), after[places.skip_from])
            return x + sum(factor * source for factor, source in zip(mu, sources, strict=True))
        return x - self.scalar("backout") * after[places.backout] if c.backout else x
