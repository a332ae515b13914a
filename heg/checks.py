"""Checks of settings, whose errors name the field, its value and what it must be."""

from collections.abc import Iterable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from cyclopts import Parameter

from heg.gas.system import real_number, whole_number

CONVERTERS = {int: whole_number, float: real_number}


def _whole_number_of_word(_, tokens) -> int:
    """A whole number from a command line or a file: 7, 1e5 or 7.0, but not 7.5."""
    word = tokens[0].value
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return whole_number(word, float(word))
    except ValueError:
        raise ValueError(f"{word!r} is not a whole number") from None


# without a converter the command line would round
Whole = Annotated[int, Parameter(converter=_whole_number_of_word)]


def require(config: Any, passed: bool, name: str, sentence: str) -> None:
    """Refuse a field of a configuration unless a check has passed.

    Args:
      config: the configuration.
      passed: the outcome of the check.
      name: of the field.
      sentence: what the field must be, as in "must be positive".

    Raises:
      ValueError: the check has not passed; the message names the field and its value.
    """
    if not passed:
        raise ValueError(f"{name} is {getattr(config, name)}: it {sentence}")


def within(config: Any, low: float, high: float, *names: str) -> None:
    """Refuse fields outside of a range; None is inside.

    Raises:
      ValueError: a field is outside.
    """
    for name in names:
        value = getattr(config, name)
        is_inside = value is None or low <= value <= high
        require(config, is_inside, name, f"must lie between {low:g} and {high:g}")


def one_of(config: Any, name: str) -> None:
    """Refuse a field that is none of the words of its Literal type.

    Raises:
      ValueError: it is another word.
    """
    words = get_args(get_type_hints(type(config))[name])
    require(config, getattr(config, name) in words, name, f"must be one of {', '.join(words)}")


def make_plain(config: Any) -> None:
    """Turn the numbers of a frozen configuration into those of Python.

    Numbers of NumPy, for instance, cannot be written to the file of a configuration.

    Raises:
      ValueError: a value is not a number, or not whole where it must be; the message names the
        field.
    """
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        options = (hint, *get_args(hint))  # of int | None or tuple[int, ...]
        convert = next((CONVERTERS[kind] for kind in options if kind in CONVERTERS), None)
        if convert is None or (value is None and type(None) in options):
            continue
        plain: Any
        if get_origin(hint) is tuple:
            plain = tuple(convert(name, item) for item in _listed(name, value))
        else:
            plain = convert(name, value)
        object.__setattr__(config, name, plain)


def _listed(name: str, value: Any) -> Iterable:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{name} is {value!r}: it must be a list of numbers")
    return value
