from truthkit.steering.extraction.extract import extract as extract
from truthkit.steering.extraction.pairs import Pair as Pair, read_pairs as read_pairs
from truthkit.steering.steer import Steering as Steering
from truthkit.steering.stacked import stacked as stacked
from truthkit.steering.vector import SteeringVector as SteeringVector
