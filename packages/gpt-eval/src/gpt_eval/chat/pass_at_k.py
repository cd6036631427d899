"""How likely one of k samples is right, estimated from n of them (Chen et al. 2021, arXiv:2107.03374)."""


def pass_at_k(n: int, correct: int, k: int) -> float:
    """1 - C(n - correct, k) / C(n, k), without bias for k at most n, as a product that neither over- nor underflows.

    Raises ValueError unless 0 <= correct <= n and 1 <= k <= n.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"correct must be 0..{n}, got {correct}")
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples and k at least 1, got n = {n}")
    if n - correct < k:
        return 1.0
    missed = 1.0
    for i in range(n - correct + 1, n + 1):
        missed *= 1.0 - k / i
    return 1.0 - missed
