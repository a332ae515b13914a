"""The settings of a run: one typed schema that is the defaults, the documentation and the checks.

The groups are the tables of a TOML file; the string below a field is its help on the command line.
"""

import contextlib
import dataclasses
import difflib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from cyclopts import Parameter

from heg.checks import Whole, make_plain, one_of, require, within
from heg.gas.system import MAX_ELECTRONS, System, whole_number

# beyond them no machine of today goes
MOST_LAYERS, MOST_WIDTH, MOST_SAMPLES, MOST_STEPS = 100, 1024, 2**22, 2**40


@dataclasses.dataclass(frozen=True)
class SystemConfig:
    """[system]: the gas."""

    electrons: Whole
    "number of electrons in the cell, N"
    dim: Literal[2, 3]
    "dimensions, 2 or 3"
    rs: float
    "Wigner-Seitz radius r_s, bohr"
    theta: float
    "temperature over the Fermi energy of the majority spin, T/E_F"
    polarization: str = "0"
    "spin polarisation, 0 ... 1 or a ratio such as 3/7"
    twist: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = ()
    "twist angle by direction, units of 2 pi, [-0.5, 0.5); none: zero"
    coupling: float = 1.0
    "scale of the Coulomb energy; 0 is the ideal gas"

    def __post_init__(self):
        make_plain(self)
        object.__setattr__(self, "dim", whole_number("dim", self.dim))
        object.__setattr__(self, "polarization", str(self.polarization))

    def build(self) -> System:
        """The System meant.

        Raises:
          ValueError: a value is impossible, or no whole numbers of electrons have this
            polarisation.
        """
        within(self, 1, MAX_ELECTRONS, "electrons")
        try:
            zeta = Fraction(str(self.polarization).strip()).limit_denominator(10**6)
        except (ValueError, ZeroDivisionError):
            raise ValueError(
                f"polarization is {self.polarization!r}: give a number or a ratio such as 3/7"
            ) from None
        n_up = self.electrons * (1 + zeta) / 2
        if not 0 <= zeta <= 1 or n_up.denominator != 1:
            allowed = ", ".join(
                str(Fraction(m, self.electrons))
                for m in range(self.electrons % 2, self.electrons + 1, 2)
            )
            raise ValueError(
                f"polarization is {self.polarization}: with {self.electrons} electrons it must be one of {allowed}"
            )
        n_down = self.electrons - int(n_up)
        return System(int(n_up), n_down, self.dim, self.rs, self.theta, self.twist, self.coupling)


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

    def __post_init__(self):
        make_plain(self)
        within(self, 1e-12, 0.1, "orbital_tolerance")
        within(self, 0, MOST_LAYERS, "transformer_layers", "flow_layers")
        within(self, 1, MOST_WIDTH, "transformer_heads", "transformer_width", "flow_width")
        sentence = f"must be a multiple of the {self.transformer_heads} heads"
        require(
            self,
            self.transformer_width % self.transformer_heads == 0,
            "transformer_width",
            sentence,
        )


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
        within(self, 2, MOST_SAMPLES, "batch")
        within(self, 1, MOST_SAMPLES, "moves", "chunk")
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
    "largest step in the metric of the Fisher matrices"

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
    "end the training once F has settled to this, hartree per electron; steps is then a bound"
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
        within(self, 0, MOST_STEPS, "steps")
        within(self, 2, MOST_STEPS, "samples")
        within(self, 1, MOST_STEPS, "save_every", "keep", "keep_every")
        within(self, 0, 2**63 - 1, "seed")
        within(self, 1e-12, 1e12, "accuracy", "max_seconds")
        for name in ("run_dir", "start"):
            value = getattr(self, name)
            named = isinstance(value, str | Path) or (value is None and name == "start")
            require(self, named, name, "must be the name of a directory")
            object.__setattr__(self, name, None if value is None else str(value))
        require(
            self,
            self.run_dir.strip() and "\0" not in self.run_dir,
            "run_dir",
            "must be the name of a directory",
        )


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run is told."""

    system: SystemConfig
    run: RunConfig
    model: ModelConfig = ModelConfig()
    sampler: SamplerConfig = SamplerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()


# what may change when a run is continued: without a word, and with one
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
TOLD_FIELDS = {
    "sampler": ("batch", "moves"),
    "optimizer": ("learning_rate", "decay", "damping", "max_norm"),
}


def suggestion(name: str, known: Iterable[str]) -> str:
    """What a name that nothing has may have meant, in words."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def tables(config: Config) -> dict[str, dict]:
    """The resolved configuration as the tables of a TOML file."""
    plain = dataclasses.asdict(config)
    return {
        name: {k: list(v) if isinstance(v, tuple) else v for k, v in table.items()}
        for name, table in plain.items()
    }


def from_tables(found: dict[str, dict]) -> Config:
    """The configuration of a run from the tables of its config.toml, the inverse of `tables`."""
    as_tuple = lambda value: tuple(value) if isinstance(value, list) else value
    kinds = {field.name: field.type for field in dataclasses.fields(Config)}
    return Config(
        **{
            name: kinds[name](**{k: as_tuple(v) for k, v in table.items()})
            for name, table in found.items()
        }
    )


def _same_gas(config, saved):
    """However it is written: polarisation 1 and 7/7, no twist and a twist of zero."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return SystemConfig(**saved["system"]).build() == config.system.build()
    return False


def _same_place(field, value, before):
    """However the directory is written: real, ./real and real/."""
    given = field == "start" and isinstance(value, str) and isinstance(before, str)
    return given and Path(value).resolve() == Path(before).resolve()


class Changes(NamedTuple):
    """Fields in which a run that is continued differs from what it was, as words.

    Attributes:
      told: those that may change.
      refused: those that may not.
    """

    told: list[str]
    refused: list[str]


def changes(config: Config, saved: dict[str, dict]) -> Changes:
    """Of `config` against the tables of the run, but for fields of no consequence."""
    found = Changes([], [])
    for name, table in tables(config).items():
        if name == "system" and _same_gas(config, saved):
            continue
        for field, value in table.items():
            before = saved.get(name, {}).get(field)
            if (
                field not in FREE_FIELDS.get(name, ())
                and value != before
                and not _same_place(field, value, before)
            ):
                kind = found.told if field in TOLD_FIELDS.get(name, ()) else found.refused
                kind.append(f"[{name}] {field} is {value}, the run has {before}")
    return found
