"""Options that are taken out of a command line before there is a parser."""

from __future__ import annotations

from collections.abc import Sequence

from pscx.errors import UsageError


def take_option(option: str, args: Sequence[str], value_name: str = "value") -> tuple[list[str], list[str]]:
    """The values of ``option VALUE`` and ``option=VALUE``, wherever they stand before ``--``, and the rest of ``args``.

    Raises :class:`UsageError`, with ``value_name``, if a value is missing.
    """
    values: list[str] = []
    rest: list[str] = []
    queue = iter(args)
    for arg in queue:
        name, equals, value = arg.partition("=")
        if arg == "--":
            return values, [*rest, arg, *queue]
        if name != option:
            rest.append(arg)
            continue
        value = value if equals else next(queue, "")
        if not value or value.startswith("--"):
            raise UsageError(f"option {option} needs a {value_name}")
        values.append(value)
    return values, rest
