"""Checks of settings: each is a sentence that names the field, its value and what it must be."""

from collections.abc import Iterable
from typing import Annotated, get_args, get_origin, get_type_hints

from cyclopts import Parameter

from heg.gas.system import real_number, whole_number


def _whole(_, tokens) -> int:
    """A whole number from a command line or a file: 7, 1e5 or 7.0, but not 7.5."""
    word = tokens[0].value
    try:
        return int(word)
    except ValueError:
        try:
            return whole_number(word, float(word))
        except ValueError:
            raise ValueError(f"{word!r} is not a whole number") from None


Whole = Annotated[int, Parameter(converter=_whole)]  # the command line itself would round


def require(config, passed: bool, name: str, sentence: str) -> None:
    """Refuses a field of a configuration: a ValueError that names it and its value, unless the
    check has passed."""
    if not passed:
        raise ValueError(f"{name} is {getattr(config, name)}: it {sentence}")


def within(config, low: float, high: float, *names: str) -> None:
    """Refuses fields outside of a range; None is inside."""
    for name in names:
        value = getattr(config, name)
        require(
            config,
            value is None or low <= value <= high,
            name,
            f"must lie between {low:g} and {high:g}",
        )


def make_plain(config) -> None:
    """Turns the numbers of a configuration, of NumPy for instance, into those of Python, which its
    file can hold.

    Raises:
      ValueError: a value is not a number, or not whole where it must be; the message names the
        field.
    """
    kinds = {int: whole_number, float: real_number}
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        wanted = [kinds[kind] for kind in (hint, *get_args(hint)) if kind in kinds]
        many = get_origin(hint) is tuple
        if not wanted or (value is None and type(None) in get_args(hint)):
            continue
        plain = (
            tuple(wanted[0](name, one) for one in _listed(name, value))
            if many
            else wanted[0](name, value)
        )
        object.__setattr__(config, name, plain)


def _listed(name, value):
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{name} is {value!r}: it must be a list of numbers")
    return value


def one_of(config, name: str) -> None:
    """Refuses a field that is none of the words of its type."""
    words = get_args(get_type_hints(type(config))[name])
    require(config, getattr(config, name) in words, name, f"must be one of {', '.join(words)}")
