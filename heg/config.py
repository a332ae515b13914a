"""The settings of a run: one typed schema that is the defaults, the documentation and the checks.

The groups are the tables of a TOML file.  The string below a field is its help on the command line.
"""

import contextlib
import dataclasses
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

from cyclopts import Parameter

from heg.checks import Whole, make_plain, one_of, require, within
from heg.gas.plasma import plasma
from heg.gas.system import MAX_ELECTRONS, RANGES, System, electrons_up, whole_number
from heg.gas.units import temperature_of_words

# no machine of today goes beyond these
MAX_LAYERS = 100
MAX_WIDTH = 1024
MAX_ORBITALS = 10**6
MAX_SAMPLES = 2**22
MAX_STEPS = 2**40
MAX_SEED = 2**63 - 1


def _theta_of_word(_, tokens) -> float | str:
    """Theta as a number, or a temperature with its unit, which SystemConfig turns into Theta."""
    word = tokens[0].value
    try:
        theta = float(word)
    except ValueError:
        return word
    if tokens[0].keyword == "--temperature":
        raise ValueError(f'temperature is {word}: give its unit too, as in "{word} eV"')
    return theta


@dataclasses.dataclass(frozen=True)
class SystemConfig:
    """[system]: the gas."""

    electrons: Whole
    "number of electrons in the cell, N"
    dim: Literal[2, 3]
    "dimensions, 2 or 3"
    rs: float | None = None
    "Wigner-Seitz radius r_s, bohr"
    theta: Annotated[
        float | None, Parameter(name=["--theta", "--temperature"], converter=_theta_of_word)
    ] = None
    (
        "temperature over the Fermi energy of the majority spin, T/E_F; "
        'or with its unit, Ha, Ry, eV or K, as in "5 eV"'
    )
    polarization: str = "0"
    "spin polarisation, 0 ... 1 or a ratio such as 3/7"
    twist: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = ()
    "twist angle by direction, units of 2 pi, [-0.5, 0.5); none: zero"
    coupling: float = 1.0
    "scale of the Coulomb energy; 0 is the ideal gas"
    statistics: Literal["quantum", "classical"] = "quantum"
    "electrons, or the classical plasma of high temperature, which has gamma for rs and theta"
    gamma: float | None = None
    "coupling parameter 1/(r_s T) of the classical plasma"

    def __post_init__(self):
        if isinstance(self.theta, str):
            object.__setattr__(self, "theta", self._theta_of_temperature(self.theta))
        make_plain(self)
        one_of(self, "statistics")
        if self.statistics == "classical":
            self._check_classical()
        else:
            self._check_quantum()
        object.__setattr__(self, "dim", whole_number("dim", self.dim))
        object.__setattr__(self, "polarization", str(self.polarization))

    def _theta_of_temperature(self, words: str) -> float:
        """T / E_F of a temperature with its unit."""
        temperature = temperature_of_words(words)
        # E_F needs no temperature
        return temperature / dataclasses.replace(self, theta=1.0).build().fermi_energy

    def _check_quantum(self) -> None:
        """Refuse a gas without r_s and Theta, or with the field of a plasma."""
        for name in ("rs", "theta"):
            given = getattr(self, name) is not None
            only_classical = "must be a number; statistics classical alone does without"
            require(self, given, name, only_classical)
        belongs = "is for statistics classical: give rs and theta instead"
        require(self, self.gamma is None, "gamma", belongs)

    def _check_classical(self) -> None:
        """Refuse a plasma without Gamma, or with a field of the quantum gas."""
        needed = "must be a number, 1 / (r_s T), for statistics classical"
        require(self, self.gamma is not None, "gamma", needed)
        low, high, _ = RANGES["coupling"]
        within(self, low, high, "gamma")
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("rs", "theta", "polarization", "twist", "coupling"):
            belongs = "is for statistics quantum: leave it out, gamma is all that matters"
            require(self, getattr(self, name) == fields[name], name, belongs)

    def build(self) -> System:
        """The System of these settings.

        Raises:
          ValueError: a value is impossible, or no whole numbers of electrons have this
            polarisation.
        """
        within(self, 1, MAX_ELECTRONS, "electrons")
        if self.statistics == "classical":
            return plasma(self.electrons, self.dim, cast(float, self.gamma))
        rs = cast(float, self.rs)
        theta = cast(float, self.theta)
        n_up = electrons_up(self.electrons, self.polarization)
        n_down = self.electrons - n_up
        return System(
            n_up=n_up,
            n_down=n_down,
            dim=self.dim,
            rs=rs,
            theta=theta,
            twist=self.twist,
            coupling=self.coupling,
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """[model]: sizes of p(K) and of the flow."""

    orbital_tolerance: float = 1e-6
    "probability of the ideal gas that the orbital cutoff may miss"
    transformer_layers: Whole = 2
    "layers of the transformer in p(K); 0: trained levels alone"
    transformer_width: Whole = 16
    "width of its tokens, a multiple of the heads"
    transformer_heads: Whole = 4
    "attention heads"
    flow_layers: Whole = 6
    "backflow layers; 0: plane waves"
    flow_width: Whole = 16
    "width of the pair networks"
    min_orbitals: Whole = 1
    "plane waves of p(K) at least; orbital_tolerance may ask for more"

    def __post_init__(self):
        make_plain(self)
        within(self, 1e-12, 0.1, "orbital_tolerance")
        within(self, 1, MAX_ORBITALS, "min_orbitals")
        within(self, 0, MAX_LAYERS, "transformer_layers", "flow_layers")
        within(self, 1, MAX_WIDTH, "transformer_heads", "transformer_width", "flow_width")
        heads = self.transformer_heads
        fits = self.transformer_width % heads == 0
        sentence = f"must be a multiple of the {heads} heads"
        require(self, fits, "transformer_width", sentence)


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """[sampler]: how (K, x) are drawn."""

    sampler: Literal["exact", "metropolis", "mala"] = "exact"
    "independent exact draws of x, or chains carried from step to step, MALA's along the gradient"
    batch: Whole = 256
    "samples in a step"
    moves: Whole = 100
    "moves of a chain after each new K"
    acceptance: float = 0.5
    "share of accepted moves aimed at by the step width"
    chunk: Whole | None = None
    "walkers computed at once, which bounds memory; none: as many as fit the memory at hand"

    def __post_init__(self):
        make_plain(self)
        one_of(self, "sampler")
        within(self, 2, MAX_SAMPLES, "batch")
        within(self, 1, MAX_SAMPLES, "moves", "chunk")
        within(self, 0.01, 0.99, "acceptance")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """[optimizer]: how the parameters move."""

    optimizer: Literal["natural", "adam"] = "natural"
    "stochastic reconfiguration, or Adam"
    learning_rate: float = 0.5
    "first step; natural: in units of 1/T for p(K), of 1/(E_F + 1/r_s^1.5) for the flow"
    decay: float = 30.0
    "steps after which the learning rate has halved"
    damping: float = 1e-2
    "added to the Fisher matrices"
    max_norm: float = 0.1
    "largest step in the metric of the Fisher matrices; classical: in units of sqrt(N) / 2"

    def __post_init__(self):
        make_plain(self)
        one_of(self, "optimizer")
        within(self, 1e-12, 1e12, "learning_rate", "decay", "damping", "max_norm")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """[run]: length and place of the run."""

    run_dir: str
    "directory of the run; an existing run is continued"
    steps: Whole = 300
    "training steps; 0: the untrained values"
    accuracy: float | None = None
    "end the training once F and T S have settled to this, hartree per electron; steps is a bound"
    start: str | None = None
    "run directory whose trained parameters the training starts from; none: the ideal gas"
    samples: Whole = 4096
    "final samples at frozen parameters"
    seed: Whole = 0
    "of all random numbers"
    save_every: Whole = 20
    "steps between checkpoints"
    keep: Whole = 3
    "checkpoints kept, the newest"
    keep_every: Whole = 100
    "steps between checkpoints that are kept for good"
    max_seconds: float | None = None
    "stop in order after this time, with exit code 75"

    def __post_init__(self):
        make_plain(self)
        within(self, 0, MAX_STEPS, "steps")
        within(self, 2, MAX_STEPS, "samples")
        within(self, 1, MAX_STEPS, "save_every", "keep", "keep_every")
        within(self, 0, MAX_SEED, "seed")
        within(self, 1e-12, 1e12, "accuracy", "max_seconds")
        self._make_text("run_dir")
        if self.start is not None:
            self._make_text("start")
        # no file system has names with a zero byte
        is_blank = not self.run_dir.strip()
        has_zero = "\0" in self.run_dir
        is_name = not is_blank and not has_zero
        require(self, is_name, "run_dir", "must be the name of a directory")

    def _make_text(self, name: str) -> None:
        """Turn a Path into text, which the file of the configuration can hold."""
        value = getattr(self, name)
        require(self, isinstance(value, str | Path), name, "must be the name of a directory")
        object.__setattr__(self, name, str(value))


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run."""

    system: SystemConfig
    run: RunConfig
    model: ModelConfig = ModelConfig()
    sampler: SamplerConfig = SamplerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()


# fields that may change when a run is continued, without a word
FREE_FIELDS = {
    "run": (
        "run_dir",
        "steps",
        "accuracy",
        "samples",
        "save_every",
        "keep",
        "keep_every",
        "max_seconds",
    ),
    "sampler": ("chunk",),
}
# fields that may change too, but the user is to know of it
ANNOUNCED_FIELDS = {
    "sampler": ("batch", "moves"),
    "optimizer": ("learning_rate", "decay", "damping", "max_norm"),
}


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence for a name that does not exist: the nearest known one, or all of them."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def tables(config: Any) -> dict[str, dict]:
    """The tables of a TOML file with the fields of a configuration.

    Args:
      config: a Config, or another dataclass of groups of settings.
    """
    return {name: _with_lists(table) for name, table in dataclasses.asdict(config).items()}


def _with_lists(table: dict) -> dict:
    """A table with lists for tuples, as it is read back from a file."""
    return {
        field: list(value) if isinstance(value, tuple) else value for field, value in table.items()
    }


def from_tables(stored: dict[str, dict]) -> Config:
    """The configuration of a run from the tables of its config.toml, the inverse of `tables`.

    Raises:
      ValueError, TypeError, KeyError, AttributeError: they are not those of a configuration.
    """
    types: dict[str, Any] = {group.name: group.type for group in dataclasses.fields(Config)}
    groups = {}
    for name, table in stored.items():
        groups[name] = types[name](**_with_tuples(table))
    return Config(**groups)


def _with_tuples(table: dict) -> dict:
    """A table with tuples for lists, as the fields of a frozen dataclass are."""
    return {
        field: tuple(value) if isinstance(value, list) else value for field, value in table.items()
    }


class Changes(NamedTuple):
    """Fields in which a run that is continued differs from what it was, in words.

    Attributes:
      announced: those that may change.
      refused: those that may not.
    """

    announced: list[str]
    refused: list[str]


def changes(config: Config, stored: dict[str, dict]) -> Changes:
    """Differences between a configuration and the tables of a run, without FREE_FIELDS."""
    announced = []
    refused = []
    for name, table in tables(config).items():
        # a gas is compared as a whole, the other groups field by field
        if name == "system" and _is_same_gas(config, stored):
            continue
        # the run may be of a version that lacked a field
        before = _defaults(name) | stored.get(name, {})
        for field, value in table.items():
            earlier = before.get(field)
            is_free = field in FREE_FIELDS.get(name, ())
            if is_free or _is_same(field, value, earlier):
                continue
            sentence = f"[{name}] {field} is {value}, the run has {earlier}"
            may_change = field in ANNOUNCED_FIELDS.get(name, ())
            if may_change:
                announced.append(sentence)
            else:
                refused.append(sentence)
    return Changes(announced, refused)


def _defaults(name: str) -> dict:
    """The table of a group of settings as it is by default; empty where it must be given."""
    (default,) = (group.default for group in dataclasses.fields(Config) if group.name == name)
    if default is dataclasses.MISSING:
        return {}
    return _with_lists(dataclasses.asdict(default))


def _is_same_gas(config: Config, stored: dict[str, dict]) -> bool:
    """Whether two gases are the same, however they are written.

    Polarisation 1 is 7/7, and no twist is a twist of zero.
    """
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return SystemConfig(**stored["system"]).build() == config.system.build()
    return False


def _is_same(field: str, value: Any, before: Any) -> bool:
    """Whether two values of a field are the same; real, ./real and real/ are one directory."""
    if value == before:
        return True
    if field != "start" or not isinstance(value, str) or not isinstance(before, str):
        return False
    return Path(value).resolve() == Path(before).resolve()
