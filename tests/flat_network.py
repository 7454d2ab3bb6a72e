"""Plain 2D networks, written from the papers' figures, with the weights of SPAD networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from spadunet.network.blocks import ConvNormAct, PointwiseConv, ResidualBlock
from spadunet.network.pyramid import SpadViTUNet
from spadunet.network.spad_conv import SpadConv, SpadConvTranspose
from spadunet.network.unet import Decoder, Encoder, SpadUNet
from spadunet.network.vit import Attention, SpadViT


class FlatConv(nn.Conv2d):
    """2D convolution with the depth-summed kernel of an adaptive one."""

    def __init__(self, layer: SpadConv):
        outputs, inputs, kernel = layer.weight.shape[:3]
        super().__init__(inputs, outputs, kernel, layer.stride, padding=kernel // 3, bias=layer.bias is not None)
        self.weight.data = layer.weight.detach().sum(2)
        if self.bias is not None:
            self.bias.data = layer.bias.detach().clone()


class FlatUp(nn.ConvTranspose2d):
    """2D transposed convolution, kernel = stride, with the depth mean of an adaptive kernel."""

    def __init__(self, layer: SpadConvTranspose):
        inputs, outputs, kernel = layer.weight.shape[:3]
        super().__init__(inputs, outputs, kernel, kernel)
        self.weight.data = layer.weight.detach().mean(2)
        self.bias.data = layer.bias.detach().clone()


class FlatPointwise(nn.Conv2d):
    def __init__(self, layer: PointwiseConv):
        super().__init__(layer.weight.shape[1], layer.weight.shape[0], 1)
        self.weight.data = layer.weight.detach()[:, :, None, None].clone()
        self.bias.data = layer.bias.detach().clone()


def flat_conv_norm_act(block: ConvNormAct) -> nn.Sequential:
    return nn.Sequential(FlatConv(block.conv), block.norm, nn.LeakyReLU(0.01))


class FlatBlock(nn.Module):
    def __init__(self, block: ResidualBlock):
        super().__init__()
        self.body = nn.Sequential(flat_conv_norm_act(block.first), FlatConv(block.conv), block.norm)
        is_pointwise = isinstance(block.shortcut, PointwiseConv)
        self.shortcut = FlatPointwise(block.shortcut) if is_pointwise else nn.Identity()
        self.act = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.shortcut(x))


class FlatEncoder(nn.Module):
    def __init__(self, encoder: Encoder):
        super().__init__()
        self.stem = flat_conv_norm_act(encoder.stem)
        self.stages = nn.ModuleList(
            nn.Sequential(*(FlatBlock(block) for block in stage.blocks)) for stage in encoder.stages
        )
        self.downs = nn.ModuleList(FlatConv(layer) for layer in encoder.downs)

    def forward(self, x: Tensor) -> list[Tensor]:
        skips = [self.stages[0](self.stem(x))]
        for down, stage in zip(self.downs, self.stages[1:], strict=True):
            skips.append(stage(down(skips[-1])))
        return skips


class FlatDecoder(nn.Module):
    def __init__(self, decoder: Decoder):
        super().__init__()
        self.ups = nn.ModuleList(FlatUp(layer) for layer in decoder.ups)
        self.blocks = nn.ModuleList(
            flat_conv_norm_act(block) if isinstance(block, ConvNormAct) else FlatBlock(block)
            for block in decoder.blocks
        )

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        x = skips.pop()
        decoded = []
        for up, block in zip(reversed(self.ups), reversed(self.blocks), strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
            decoded.insert(0, x)
        return decoded


class FlatUNet(nn.Module):
    """A 2D residual U-Net: (B, 3, H, W) with sizes divisible by 32, to decoded maps, finest first."""

    def __init__(self, network: SpadUNet):
        super().__init__()
        self.encoder, self.decoder = FlatEncoder(network.encoder), FlatDecoder(network.decoder)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.decoder(self.encoder(x))


def turn(x: Tensor, height: int, width: int) -> Tensor:
    """EVA-02's rotary positions: (B, N, 1 + L, E), pairs of channels as complex numbers, the cls token in front."""
    num_pairs = x.shape[-1] // 4
    rates = 10000 ** (-torch.arange(num_pairs) / num_pairs)
    rows = (torch.arange(height)[:, None, None] * rates).expand(height, width, -1)
    columns = (torch.arange(width)[:, None] * rates).expand(height, width, -1)
    angles = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    turned = torch.view_as_complex(x[:, :, 1:].unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([x[:, :, :1], torch.view_as_real(turned).flatten(-2)], dim=2)


def attend(attention: Attention, x: Tensor, height: int, width: int) -> Tensor:
    """Softmax attention of (B, 1 + L, C), written out."""
    q, k, v = (
        layer(x).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    logits = turn(q, height, width) @ turn(k, height, width).transpose(2, 3) / q.shape[-1] ** 0.5
    return attention.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


def flat_tokens(vit: SpadViT, x: Tensor, numbers: tuple[int, ...]) -> list[Tensor]:
    """(B, 3, H, W), as many patches as the position grid has, to the blocks' outputs (B, C, h, w)."""
    patches = functional.conv2d(x, vit.patch_embed.weight.sum(2), vit.patch_embed.bias, stride=16)
    height, width = patches.shape[2:]
    tokens = (patches + vit.pos_embed.mean(2)).flatten(2).transpose(1, 2)
    tokens = torch.cat([vit.cls_token.expand(len(x), -1, -1), tokens], dim=1)
    outputs = []
    for block in vit.blocks:
        tokens = tokens + attend(block.attn, block.norm1(tokens), height, width)
        tokens = tokens + block.mlp(block.norm2(tokens))
        outputs.append(tokens[:, 1:].transpose(1, 2).unflatten(2, (height, width)))
    return [outputs[number] for number in numbers]


def flat_vit_unet(network: SpadViTUNet, x: Tensor) -> list[Tensor]:
    """A 2D ViT with pyramid, convolution path and U-Net decoder: (B, 3, H, W) to decoded maps, finest first."""
    pyramid = network.pyramid
    tokens = flat_tokens(network.vit, x, network.blocks)
    first, second, third, fourth = (norm(y) for norm, y in zip(pyramid.norms, tokens, strict=True))
    first = functional.gelu(pyramid.norm_between(FlatUp(pyramid.double_first)(first)))
    maps = [
        FlatUp(pyramid.double_again)(first),
        FlatUp(pyramid.double_second)(second),
        third,
        functional.max_pool2d(fourth, 2),
    ]
    maps = [
        functional.leaky_relu(lateral.norm(FlatPointwise(lateral.conv)(y)), 0.01)
        for lateral, y in zip(pyramid.laterals, maps, strict=True)
    ]
    return FlatDecoder(network.decoder)([*FlatEncoder(network.full_resolution)(x), *maps])
