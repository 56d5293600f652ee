"""Files of small networks as other programs write them, with spandrel's own classes."""

import warnings

import torch


def random_weights(network):
    """The network with weights so large that its output depends on all of them."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
    return network.eval()


def compact(scale=4, channels=3, layers=3):
    """A plain convolutional network of `layers + 2` kernels of 3x3."""
    from srcli.pretrained.community import import_spandrel

    import_spandrel()
    from spandrel.architectures.Compact import Compact

    return random_weights(
        Compact(
            num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=layers,
            upscale=scale,
        )
    )  # fmt: skip


def esrgan(scale=4):
    """Dense blocks of 3x3 kernels; the enlargement at the end."""
    from srcli.pretrained.community import import_spandrel

    import_spandrel()
    from spandrel.architectures.ESRGAN import ESRGAN

    return random_weights(
        ESRGAN(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=scale)
    )


def swinir(scale=2):
    """A transformer with windows of 8x8 pixels, shifted in every second layer."""
    from srcli.pretrained.community import import_spandrel

    import_spandrel()
    from spandrel.architectures.SwinIR import SwinIR

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of spandrel's code
        network = SwinIR(
            img_size=16, window_size=8, depths=(2,), embed_dim=12, num_heads=(2,),
            mlp_ratio=2, upscale=scale, upsampler="pixelshuffledirect",
        )  # fmt: skip
    return random_weights(network)


def rcan(scale=2):
    """A convolutional network with means over the whole picture."""
    from srcli.pretrained.community import import_spandrel

    import_spandrel()
    from spandrel.architectures.RCAN import RCAN

    return random_weights(
        RCAN(scale=scale, n_resgroups=1, n_resblocks=1, n_feats=8, reduction=4)
    )
