"""Batch-norm re-estimation: the running statistics of weights that were never trained as they are."""

from core.engine.datasets.split import Split, iterate_chunks
from core.engine.evaluation.evaluate import eval_mode
from core.engine.failure import passing_examples
from core.engine.liveness import report_each
from core.engine.networks.network import Network
from core.engine.networks.norms import running_norms


def reestimate_batch_norm(network: Network, train: Split, batch_size: int) -> None:
    """Set running statistics to the example-weighted mean over the batches of `train`, in its own order.

    Averaged weights have no statistics of their own, because they were never run on data (Izmailov et al. 2018, section
    3.2). A batch of b examples after n others has momentum b / (n + b). Dropout is off. A split
    with augmentation is augmented, as by torch.optim.swa_utils.update_bn with the loader of training; the draws are the
    same in every re-estimation.
    """
    layers = running_norms(network.module)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    try:
        with eval_mode(network.module):
            for layer in layers:
                layer.train()
                layer.reset_running_stats()
            seen = 0
            batches = iterate_chunks(train, chunk_sizes(len(train), batch_size), augmented=True)
            for batch, _ in report_each(network.report_alive, "batch_norm", batches):
                for layer in layers:
                    layer.momentum = len(batch) / (seen + len(batch))
                with passing_examples():
                    network.forward(batch)
                seen += len(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def chunk_sizes(examples: int, size: int) -> list[int]:
    """Batches of `size` and the remainder; a single last example, which has no variance, joins the batch before it."""
    whole, rest = divmod(examples, size)
    sizes = [size] * whole + ([rest] if rest else [])
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [sizes[-2] + 1]
    return sizes
