"""The density matrix as pure functions of its parameters."""

from collections.abc import Callable
from typing import NamedTuple

from heg.model.flow import Flow
from heg.model.occupations import Occupations


class Params(NamedTuple):
    """Parameters of p(K) and of the flow."""

    occupations: dict
    flow: dict


class Model(NamedTuple):
    """The density matrix as pure functions.

    Attributes:
      occupations: p(K).
      flow: x -> z.
      log_psi: flow params, x [N, d], state [N] -> ln Psi.
      score: the same -> Score, the derivatives of ln Psi.
      local_energy: the same as ln Psi -> LocalEnergy, z [N, d].
      controls: z [N, d], state [N] -> Controls.
      draw: flow params, state [B, N], keys [B] -> Draws.
    """

    occupations: Occupations
    flow: Flow
    log_psi: Callable
    score: Callable
    local_energy: Callable
    controls: Callable
    draw: Callable
