"""Numbers of things in messages."""


def counted(number: int, what: str) -> str:
    """`1 photograph`, `2 photographs`, `12,000 photographs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
