"""Second derivatives: against closed forms, finite differences and a dense solver."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from core.engine.analysis.curvature import Curvature, Lanczos, leading_eigenpairs
from core.engine.analysis.loss_surface import LossSurface
from core.engine.analysis.subject import AnalysisSubject
from core.engine.evaluation.evaluate import eval_mode
from tests.train.runs import no_trace
from tests.train.tiny import at, classifier

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS: list[Callable[[], AnalysisSubject]] = [
    classifier,
    lambda: classifier(batch_norm=True),
    lambda: classifier(convolution=True, batch_norm=True),
]


def gradient(subject: AnalysisSubject, weights: Tensor) -> Tensor:
    """Of the loss over the whole train part at other weights, by backward() through the network itself."""
    network, part = subject.network, subject.parts["train"]
    before = network.values.clone()
    network.values.copy_(weights)
    network.gradient.zero_()
    with eval_mode(network.module), torch.enable_grad():
        subject.objective.loss(network.forward(part.inputs), part.targets).backward()
    network.values.copy_(before)
    found = network.gradient.clone()
    network.gradient.zero_()
    return found


def dense(subject: AnalysisSubject) -> Tensor:
    """The Hessian (P, P), by central differences of gradients; right to 1e-8 or so."""
    values = subject.network.values.clone()
    rows = [
        (gradient(subject, values + each) - gradient(subject, values - each)) / 2e-5
        for each in 1e-5 * torch.eye(len(values), dtype=torch.float64)
    ]
    return (torch.stack(rows) + torch.stack(rows).T) / 2


def curvature(subject: AnalysisSubject, **options: int) -> Curvature:
    network = subject.network
    return Curvature(LossSurface(network, subject.parts["train"], subject.objective.loss, **options), network.values)


@pytest.mark.parametrize("make", NETWORKS)
def test_products_are_those_with_the_dense_hessian(make: Callable[[], AnalysisSubject]) -> None:
    """Chunked or not, graphs kept or not, the same numbers; the network and every generator are as they were."""
    subject = make()
    before = {name: each.clone() for name, each in subject.network.tensors().items()}
    vector = torch.linspace(-1, 1, len(subject.network.values), dtype=torch.float64)
    with no_trace():
        whole, little = curvature(subject), curvature(subject, room=20_000)
        products = [each.hessian_product(vector) for each in (whole, little)]
    torch.testing.assert_close(products[0], dense(subject) @ vector, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(products[1], products[0], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(little.gradient, gradient(subject, subject.network.values), atol=1e-12, rtol=1e-12)
    assert whole.product_passes == (0, 2)
    assert little.product_passes == (1, 3)
    assert all(torch.equal(each, before[name]) for name, each in subject.network.tensors().items())
    assert not subject.network.gradient.any()
    assert not subject.network.module.training


def test_an_eigenvalue_does_not_grow_with_the_examples() -> None:
    """The same examples four times have the same mean loss; a sum over batches would be four times as curved."""
    subject = classifier()
    part = subject.parts["train"]
    again = type(part)(part.inputs.repeat(4, 1), part.targets.repeat(4))
    once, often = leading_eigenpairs(subject, part, 2, 0)[0], leading_eigenpairs(subject, again, 2, 0)[0]
    torch.testing.assert_close(once, often, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("make", NETWORKS)
def test_lanczos_against_a_dense_solver(make: Callable[[], AnalysisSubject]) -> None:
    """The outermost eigenvalues to the residual that is given, and eigenvectors that are some."""
    subject = make()
    hessian = dense(subject)
    exact = torch.linalg.eigvalsh(hessian)
    exactly = curvature(subject)
    lanczos = Lanczos.start_iteration(exactly.gradient, 40, 0)
    while not lanczos.is_complete:
        lanczos.extend_basis(exactly.hessian_product)
    found = lanczos.ritz_pairs()
    for place in (0, -1):
        residual = torch.linalg.vector_norm(hessian @ found.vectors[place] - found.values[place] * found.vectors[place])
        assert abs(found.values[place] - exact[place]) <= found.residuals[place] + 1e-7
        assert float(residual) == pytest.approx(float(found.residuals[place]), abs=1e-6)
    torch.testing.assert_close(lanczos.basis @ lanczos.basis.T, torch.eye(40, dtype=torch.float64), atol=1e-13, rtol=0)
    values, vectors = leading_eigenpairs(subject, subject.parts["train"], 3, 0)
    torch.testing.assert_close(values, exact.flip(0)[:3], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(hessian @ vectors.T, vectors.T * values, atol=1e-3, rtol=0)


def test_quadratics_give_their_curvatures() -> None:
    """½ Σ h x², also where curvatures are equal, negative or nothing; there are only as many as weights."""
    curvatures = torch.tensor([3.0, 3.0, 3.0, 0.5, -2.0, 0.0], dtype=torch.float64)
    subject = at([1.0, -2.0, 0.5, 3.0, 1.0, 1.0], lambda x: (curvatures * x**2).sum() / 2)
    part = subject.parts["train"]
    values, vectors = leading_eigenpairs(subject, part, 6, 0)
    assert values.tolist() == pytest.approx([3.0, 3.0, 3.0, 0.5, 0.0, -2.0], abs=1e-12)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(6, dtype=torch.float64), atol=1e-12, rtol=0)
    assert len(leading_eigenpairs(subject, part, 9, 0)[0]) == 6
    plane = at([1.0, 2.0], lambda x: 4 * x[0] - x[1])
    assert leading_eigenpairs(plane, plane.parts["train"], 2, 0)[0].tolist() == [0.0, 0.0]


def test_lanczos_goes_on_where_it_stood() -> None:
    """The same bits from its tensors as from one that was never put away."""
    subject = classifier()
    exactly = curvature(subject)
    whole = Lanczos.start_iteration(exactly.gradient, 12, 3)
    while not whole.is_complete:
        whole.extend_basis(exactly.hessian_product)
    half = Lanczos.start_iteration(exactly.gradient, 12, 3)
    for _ in range(5):
        half.extend_basis(exactly.hessian_product)
    rest = Lanczos.from_tensors({name: each.clone() for name, each in half.tensors().items()}, 3)
    afresh = curvature(subject)
    while not rest.is_complete:
        rest.extend_basis(afresh.hessian_product)
    assert all(torch.equal(each, rest.tensors()[name]) for name, each in whole.tensors().items())
