"""What one word of a command line may be: types for argparse, each refusing in words of its own."""

import argparse
import re


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 19 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return int(text)


def sizes(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


def counted(text: str) -> int:
    """0 or more."""
    return 0 if text == "0" else positive(text)


MULTIPLES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def size(text: str) -> int:
    """Bytes: 5GB, 500MB, 1000; units are powers of 1000, as in Hugging Face's libraries."""
    found = re.fullmatch(r"([0-9]{1,15})(?:([KMGT])?B)?", text, re.ASCII)
    if found is None or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"must be a size like 5GB, got {text!r}")
    return int(found[1]) * MULTIPLES[found[2] or ""]


def time_limit(text: str) -> str:
    """Slurm's forms: M, M:SS, H:MM:SS, D-H, D-H:MM, D-H:MM:SS."""
    if not re.fullmatch(r"\d{1,6}(:\d\d){0,2}|\d{1,4}-\d\d?(:\d\d){0,2}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be a time like 90, 12:00:00 or 1-12:00:00, got {text!r}")
    return text


def plain(text: str) -> str:
    if not re.fullmatch(r"[\w.,:@/-]{1,250}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be letters, digits and .,:@/_-, got {text!r}")
    return text
