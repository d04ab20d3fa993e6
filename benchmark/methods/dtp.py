"""DTP, difference target propagation (Lee et al. 2015): Equation 8."""

from benchmark.methods.target_propagation import DifferenceCorrection
from benchmark.methods.tp import TP


class DTP(DifferenceCorrection, TP):
    """TP with corrected targets. Its decoders learn as TP's do."""

    name = "DTP"

    batch_norm: bool = False
