"""What the constructors of the models share: checks of their arguments, and default networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from genmod.checks import check_at_least, instance, invalid, whole_number
from genmod.config import Settings
from genmod.decoders import Decoder, likelihood
from genmod.decoders.base import check_decoder
from genmod.nn import MLP, ConvNets, MLPs, Networks
from genmod.nn.conditioning import Condition
from genmod.nn.modules import call
from genmod.nn.networks import Conditional, default_networks
from genmod.spec import DataSpec, HasSpec, SpecLike
from genmod.tensors import Shape, size


def stated_spec(
    spec: SpecLike | None, bins: int | None, decoder: Decoder | None
) -> DataSpec | None:
    """The description of the data: a given decoder's own, else what the caller states, if anything.

    Raises:
        ValueError: a shape, a kind of data or a number of values that contradicts the decoder.
    """
    stated = None if spec is None else DataSpec.of(spec, bins)
    if decoder is None:
        return stated
    own = check_decoder(decoder).spec
    bare = bins is None and not isinstance(spec, DataSpec | HasSpec)
    agree = bins in (None, own.bins)
    if stated is not None:
        agree = stated.shape == own.shape if bare else stated == own
    if not agree:
        got = f"bins={bins}" if stated is None else f"data of {stated}"
        raise invalid(
            f"{got} beside a decoder of {own}",
            "one description of the data",
            "leave it out, because a decoder of your own states its data, or build the decoder "
            "for these",
        )
    return own


def data_spec(spec: DataSpec | None, part: str) -> DataSpec:
    """The description of the data, required where a part has to be built from it.

    Raises:
        ValueError: no description.
    """
    if spec is None:
        raise invalid(
            f"no description of the data and no {part}",
            "one of them",
            "pass a data set, a shape such as (1, 8, 8) with bins= for integers, or your own "
            f"{part}",
        )
    return spec


def as_shape(shape: Sequence[int] | int) -> Shape:
    """The shape of a latent as a tuple; one number is the length of a vector.

    Raises:
        ValueError: an empty shape, or one with an empty dimension.
    """
    return DataSpec.of(shape).shape


class LinearSkip(Settings, nn.Module):
    """A network plus a linear map of the same input: ``A x + b + network(x)``.

    With the network's output at zero it is a factor analysis, which is hard to beat on a small table. The
    network learns what is not linear. (A perceptron alone normalizes its layers and is never linear.)

    Args:
        network: ``network(x, context)``; the weights of the last layer of an ``MLP`` start at zero.
        inputs: how many numbers a row it takes.
        outputs: how many numbers a row it gives.
    """

    def __init__(self, network: nn.Module, inputs: int, outputs: int) -> None:
        super().__init__()
        self.network, self.linear = network, nn.Linear(inputs, outputs)
        if isinstance(network, MLP):
            for name, parameter in network.last.named_parameters():
                if name == "2.weight":  # after the norm and the activation
                    nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, inputs)`` to ``(B, outputs)``."""
        added: Tensor = self.linear(x.flatten(1)) + call(self.network, x, context=context)
        return added


@dataclass(frozen=True)
class TableNetworks(Networks):
    """Networks between the vectors of a table, each with a linear map beside it (:class:`LinearSkip`).

    Args:
        networks: the kind of network.
    """

    networks: Networks

    @property
    def features(self) -> int:
        """As many as the kind has."""
        return self.networks.features

    def build(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """A network of the kind, plus a linear map."""
        network = self.networks.build(inputs, outputs, context)
        return LinearSkip(network, size(inputs), size(outputs))

    def denoiser(
        self,
        shape: Shape,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> nn.Module:
        """A denoiser's network of the kind, as it is."""
        return self.networks.denoiser(shape, fourier, outputs, context)


def resolve_networks(
    networks: Networks | None,
    data: DataSpec,
    width: int | None,
    depth: int | None,
    dropout: float,
    condition: Condition | None = None,
) -> Networks:
    """The user's own networks, or the default kind for the data with the user's settings.

    Where there is a condition, each network is conditioned on it. Default networks of a table have a linear
    map beside them.

    Raises:
        ValueError: networks of one's own, and settings of the default ones.
    """
    if condition is not None:
        return Conditional(resolve_networks(networks, data, width, depth, dropout), condition)
    if networks is not None:
        if width is not None or depth is not None or dropout != 0:
            raise invalid(
                f"networks={networks} beside width={width}, depth={depth}, dropout={dropout}",
                "one or the other",
                "put the settings into the networks: ConvNets(width=32, dropout=0.1)",
            )
        return instance(networks, Networks, "networks")
    for name, value, least in (("width", width, 1), ("depth", depth, 0)):
        if value is not None:
            check_at_least(whole_number(value, name), least, name, "leave it out for the default")
    kind = default_networks(data.shape)
    assert isinstance(kind, MLPs | ConvNets)
    found = replace(
        kind,
        width=kind.width if width is None else width,
        depth=kind.depth if depth is None else depth,
        dropout=dropout,
    )
    return found if data.columns is None else TableNetworks(found)


def check_condition(condition: Condition | None, *parts: object | None) -> None:
    """Refuse a condition where every network is the user's own.

    Args:
        condition: what the networks are to be conditioned on.
        parts: the user's own parts; ``None`` for one that the model builds.

    Raises:
        ValueError: a condition, and no part that the model builds.
    """
    if isinstance(condition, type):
        instance(condition, Condition, "condition")
    if condition is not None and not any(part is None for part in parts):
        raise invalid(
            f"condition={condition} beside parts of your own",
            "one or the other",
            "build the networks of your parts with it, such as UNet(shape, context=Labels(10))",
        )


def check_networks(built: bool, settings: Mapping[str, object]) -> None:
    """Refuse settings of default networks where every network is the user's own.

    Args:
        built: whether the model builds a part of its own.
        settings: of the default networks, by name.

    Raises:
        ValueError: a setting that would be ignored.
    """
    stated = [f"{name}={value}" for name, value in settings.items() if value not in (None, 0, ())]
    if stated and not built:
        raise invalid(
            f"{', '.join(stated)} beside parts of your own",
            "one or the other",
            "put the settings into the networks of your parts",
        )


def multiply_channels(shape: Shape, count: int) -> Shape:
    """The shape of ``count`` numbers for each entry of an event: that many times its channels."""
    return (count * shape[0], *shape[1:])


def default_decoder(networks: Networks, code: Shape, spec: DataSpec) -> Decoder:
    """The default decoder for a kind of data, on networks of a kind.

    Args:
        networks: the kind of networks.
        code: the shape of the decoder's input.
        spec: the data.
    """

    def network(outputs: int) -> nn.Module:
        if spec.columns is not None:
            return networks.build(code, (outputs,))
        return networks.build(code, multiply_channels(spec.shape, outputs // spec.size))

    return likelihood(network, spec)
