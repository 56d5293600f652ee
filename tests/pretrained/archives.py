"""Archives, as bytes."""

import gzip
import io
import tarfile
import zipfile


def pack(suffix, members):
    """A .tar, .tgz or .zip; members are a name or its TarInfo or ZipInfo, and bytes."""
    stream = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members:
                archive.writestr(name, data)
        return stream.getvalue()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    packed = stream.getvalue()
    return gzip.compress(packed, mtime=0) if suffix == ".tgz" else packed


def special(name, kind, target=""):
    """What a tar holds that is no file."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info
