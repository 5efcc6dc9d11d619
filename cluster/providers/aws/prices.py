"""What machines cost by the hour: a small table, good for an estimate before money is spent."""

PRICES_OF = "January 2025, us-east-1, Linux, on demand"
# Dollars an hour of the size `large`; the other sizes of a family cost in proportion.
LARGE = {
    **{"t2": 0.0928, "t3": 0.0832, "t3a": 0.0752, "t4g": 0.0672},
    **{"m5": 0.096, "m5a": 0.086, "m6i": 0.096, "m6a": 0.0864, "m6g": 0.077},
    **{"m7i": 0.1008, "m7a": 0.11592, "m7g": 0.0816},
    **{"c5": 0.085, "c5a": 0.077, "c6i": 0.085, "c6a": 0.0765, "c6g": 0.068},
    **{"c7i": 0.08925, "c7a": 0.10264, "c7g": 0.0725},
    **{"r5": 0.126, "r6i": 0.126, "r6g": 0.1008, "r7i": 0.1323, "r7g": 0.1071},
}
SIZES = {"nano": 1 / 16, "micro": 1 / 8, "small": 1 / 4, "medium": 1 / 2, "large": 1.0}


def price_of(machine_type: str) -> float | None:
    """Dollars an hour, to about a tenth; None if the table has nothing of it."""
    family, _, size = machine_type.partition(".")
    times = size.removesuffix("xlarge")
    if size in SIZES:
        share = SIZES[size]
    elif size.endswith("xlarge") and (times.isdigit() or not times):
        share = 2.0 * int(times or 1)
    else:
        return None
    return LARGE[family] * share if family in LARGE else None


def estimate(
    head_type: str, worker_type: str, workers: int, price: float | None, hours: float
) -> str:
    """What a cluster costs by the hour and at most.

    Args:
        workers: machines of them.
        price: the most that a worker's machine may cost an hour; None: the fixed price.
        hours: after which all ends.
    """
    head = price_of(head_type)
    each = price_of(worker_type) if price is None else price
    unknown = [t for t, cost in ((head_type, head), (worker_type, each)) if cost is None]
    known = (head or 0.0) + workers * (each or 0.0)
    kind = "on demand" if price is None else f"spot, at most ${price:g} each"
    lines = [
        f"head {head_type}: {_dollars(head)}; {workers} × {worker_type}, {kind}:"
        f" {_dollars(None if each is None else workers * each)} an hour",
        f"together {_dollars(known)} an hour, at most {_dollars(known * hours)} in {hours:g} hours"
        f" ({PRICES_OF}; other regions up to twice that; disks and traffic not counted)",
    ]
    if unknown:
        names = " and ".join(dict.fromkeys(unknown))
        lines.append(f"not counted: {names}, of which no price is known here")
    return "\n".join(lines)


def _dollars(amount: float | None) -> str:
    return "unknown" if amount is None else f"${amount:,.2f}"
