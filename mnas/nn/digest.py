"""The digest of a network's weights, equal for equal networks."""

import hashlib

from mnas.nn.network import Network


def weights_digest(network: Network) -> str:
    """Return 16 hexadecimal digits that depend on all weights and statistics of the network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
