"""What an rclone.conf says of a remote: where its bytes end up, and through what no copy can be proven."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.children.process import Children
from exlab_watch_agent.adapters.transports.rclone.config import RemoteConfig, read_remote
from exlab_watch_agent.adapters.transports.rclone.transport import RcloneTransport
from exlab_watch_agent.core.policy import RcloneTarget
from exlab_watch_agent.errors import DestinationUnreachableError, FailureKind, TransportError
from exlab_watch_agent.ports import Control
from tests.adapters.transports.contract import entries
from tests.lab.servers import RCLONE, RcloneRemote, obscured

NAS = "\n[nas]\ntype = sftp\nhost = nas.example\n\n[cloud]\ntype = s3\nprovider = Other\n\n[disk]\ntype = local\n"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "rclone.conf"


def read(conf: Path, lab: str, more: str = NAS) -> RemoteConfig:
    conf.write_text(f"[lab]\n{lab}\n{more}", encoding="utf-8")
    return read_remote(conf, "lab")


# --- where the bytes end up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lab", "types"),
    [
        ("type = sftp\nhost = nas.example", {"sftp"}),
        ("type = local", {"local"}),
        ("type = alias\nremote = nas:lab", {"sftp"}),
        ("type = alias\nremote = /mnt/lab", {"local"}),
        ("type = alias\nremote = relative/folder", {"local"}),
        ("type = crypt\nremote = nas:lab\npassword = x", {"sftp"}),
        ("type = crypt\nremote = /mnt/lab\npassword = x", {"local"}),
        ("type = chunker\nremote = cloud:bucket/lab\nchunk_size = 1G", {"s3"}),
        ("type = hasher\nremote = disk:/mnt/lab\nhashes = sha256", {"local"}),
        ("type = combine\nupstreams = a=nas:x b=cloud:y", {"sftp", "s3"}),
        ('type = combine\nupstreams = "a b=nas:x y" "c=disk:/with ""quotes"""', {"sftp", "local"}),
        ("type = combine\nupstreams = a=nas:x b=nas:x", {"sftp"}),
        ("type = alias\nremote = :sftp,host=nas.example:lab", {"sftp"}),
        ("type = alias\nremote = :local:/mnt/lab", {"local"}),
        ('type = crypt\npassword = x\nremote = :alias,remote="nas:a, b":', {"sftp"}),
        ("type = alias\nremote = :alias,remote='it''s/here':", {"local"}),
        ("type = alias\nremote = nas,port=2222:lab", {"sftp"}),
        ("type = alias\nremote = nas,type=memory:lab", {"memory"}),
        ('type = combine\nupstreams = "a=:webdav,url=""http://nas.example/x"":y" b=cloud:', {"webdav", "s3"}),
        # as rclone reads it: either sign between name and value, blanks in a header, quotes that it takes away
        ("type : alias\nremote : nas:lab", {"sftp"}),
        ('type = `alias`\n"remote" = """nas:lab"""', {"sftp"}),
        # what cannot be told may be a folder of this PC
        ("type = alias\nremote = gone:lab", {"local"}),
        ("type = alias\nremote = lab:lab", {"local"}),
        ("type = alias", {"local"}),
        ("host = nas.example", {"local"}),
        ('type = alias\nremote = :sftp,host="nas.example:lab', {"local"}),
        ('type = combine\nupstreams = a=nas:x "b=cloud:', {"local"}),
        ("type = combine\nupstreams = nas:x", {"local"}),
    ],
)
def test_the_types_at_the_ends_of_all_wrappers_are_those_where_the_bytes_end_up(
    conf: Path, lab: str, types: set[str]
) -> None:
    assert read(conf, lab).leaf_types == types


def test_a_wrapper_of_wrappers_is_followed_to_each_end(conf: Path) -> None:
    more = (
        "\n[ outer ]\ntype = hasher\nremote = both:a\n[both]\ntype = combine\nupstreams = a=secret:x b=disk:/y\n"
        "[secret]\ntype = crypt\nremote = cut:z\n[cut]\ntype = chunker\nremote = nas:\n"
    )
    config = read(conf, "type = alias\nremote = outer:x", more + NAS)
    assert config.leaf_types == {"sftp", "local"}
    assert set(config.sections) == {"lab", "outer", "both", "secret", "cut", "nas", "disk"}


def test_a_remote_named_with_parameters_goes_into_the_private_copy(conf: Path) -> None:
    lab = "type = combine\nupstreams = a=nas,port=2222:x \"b=:crypt,remote='cloud:y',password=x:\""
    config = read(conf, lab)
    assert set(config.sections) == {"lab", "nas", "cloud"}
    assert "[nas]" in config.text
    assert "[cloud]" in config.text


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    children = Children(tmp_path / "children")
    yield children
    children.close()


def copied(conf: Path, root: str, children: Children, run: Path) -> None:
    """Let the agent's rclone copy one file through the remote [lab]."""
    run.mkdir()
    (run / "a.bin").write_bytes(b"data")
    transport = RcloneTransport(RcloneTarget("lab", root, str(conf)), children=children)
    try:
        transport.round_trip()
        transport.copy(str(run), entries(run), "run", control=Control())
        assert transport.listing("run").keys() == {"a.bin"}
    finally:
        transport.close()


def test_rclone_puts_the_bytes_where_the_types_say(
    conf: Path, tmp_path: Path, children: Children, rclone_sshd: RcloneRemote
) -> None:
    """Encrypted into a folder of this machine; and through two aliases, one of them with a parameter, over sftp."""
    disk = tmp_path / "disk"
    (disk / "root").mkdir(parents=True)
    lab = f"type = crypt\nremote = {disk}\npassword = {obscured('x')}\nfilename_encryption = off"
    assert read(conf, lab).leaf_types == {"local"}
    copied(conf, "root", children, tmp_path / "one")
    assert [path.name for path in (disk / "root" / "run").iterdir()] == ["a.bin.bin"]

    remote = rclone_sshd
    root = remote.root / tmp_path.name
    (root / "root").mkdir(parents=True)
    lab = f"type = alias\nremote = between:{root}"
    more = f"[between]\ntype = alias\nremote = {remote.name},set_modtime=true:\n"
    assert read(conf, lab, more + remote.config.read_text()).leaf_types == {"sftp"}
    copied(conf, "root", children, tmp_path / "two")
    assert (root / "root" / "run" / "a.bin").read_bytes() == b"data"


# --- through what no copy can be proven ------------------------------------------------------------------------------

CACHE = "[slow]\ntype = cache\nremote = nas:lab\n"
ITS_OWN = "answers from a cache of its own on this PC, so what is read back proves nothing"


@pytest.mark.parametrize(
    ("lab", "more", "words"),
    [
        ("type = cache\nremote = nas:lab", "", [r"\[lab\]", ITS_OWN, "the remote behind it, nas, in rclone_remote"]),
        ("type : cache\nremote : nas:lab", "", [ITS_OWN, "the remote behind it, nas,"]),
        ("type = `cache`\nremote = nas:lab", "", [ITS_OWN]),
        ("type = cache\nremote = /mnt/lab", "", [ITS_OWN, "that leads where it leads"]),
        ("type = alias\nremote = slow:x", CACHE, [r"\[slow\]", ITS_OWN, r"let \[lab\] lead to .*, nas,"]),
        ("type = crypt\nremote = slow:x\npassword = x", CACHE, [r"\[slow\]", ITS_OWN]),
        ("type = combine\nupstreams = a=nas:x b=slow:x", CACHE, [r"\[slow\]", ITS_OWN]),
        ("type = chunker\nremote = two:x", "[two]\ntype = hasher\nremote = slow:x\n" + CACHE, [r"\[slow\]", ITS_OWN]),
        ("type = alias\nremote = :cache,remote=nas:lab:x", "", ["an unnamed remote", ITS_OWN]),
        ('type = alias\nremote = :cache,remote="nas:lab":x', "", ["an unnamed remote", ITS_OWN, ", nas,"]),
        ("type = alias\nremote = nas,type=cache,remote='cloud:x':", "", [r"\[nas\]", ITS_OWN, ", cloud,"]),
        ('type = alias\nremote = :alias,remote=":cache,remote=""nas:x"":":', "", ["an unnamed remote", ITS_OWN]),
        ('type = combine\nupstreams = a=nas:x "b=:cache,remote=""cloud:y"":"', "", ["an unnamed remote", ITS_OWN]),
        ("type = union\nupstreams = nas:x cloud:y:ro", "", ["of type union", ", nas or cloud,", "rclone_remote"]),
        ("type = compress\nremote = nas:x", "", ["of type compress"]),
        ("type = archive\nremote = nas:x", "", ["of type archive"]),
        ("type = alias\nremote = :archive:nas:x", "", ["of type archive"]),
        ("type = nobody_knows\nremote = nas:x", "", ["of type nobody_knows", ", nas,"]),
        ("type = crypt\npassword = x\nremote = outer:x", "[outer]\ntype = union\nupstreams = nas:x\n", [r"\[outer\]"]),
        ("remote = nas:x", "", ["of no type"]),
    ],
)
def test_a_remote_whose_answers_prove_nothing_is_refused_with_the_way_out(
    conf: Path, lab: str, more: str, words: list[str]
) -> None:
    with pytest.raises(TransportError) as caught:
        read(conf, lab, more + NAS)
    assert caught.value.kind is FailureKind.UNKNOWN
    assert str(conf) in str(caught.value)
    for pattern in words:
        assert re.search(pattern, str(caught.value)), str(caught.value)


def test_nothing_is_asked_of_a_remote_that_is_refused(conf: Path, tmp_path: Path, children: Children) -> None:
    (tmp_path / "nas" / "root").mkdir(parents=True)
    conf.write_text(f"[lab]\ntype = cache\nremote = {tmp_path}/nas\n")
    transport = RcloneTransport(RcloneTarget("lab", "root", str(conf)), children=children)
    try:
        for ask in (transport.round_trip, transport.bind):
            with pytest.raises(DestinationUnreachableError, match=ITS_OWN):
                ask()
        with pytest.raises(TransportError, match=ITS_OWN):
            transport.check_tools()
        with pytest.raises(TransportError, match=ITS_OWN):
            transport.copy(str(tmp_path), (), "run", control=Control())
        with pytest.raises(TransportError, match=ITS_OWN):
            transport.read_back("run", ["a.bin"], control=Control())
        assert os.listdir(tmp_path / "nas" / "root") == []
    finally:
        transport.close()


def test_a_remote_that_becomes_one_that_is_refused_is_refused_from_the_next_request_on(
    conf: Path, tmp_path: Path, children: Children
) -> None:
    (tmp_path / "nas" / "root").mkdir(parents=True)
    conf.write_text(f"[lab]\ntype = alias\nremote = {tmp_path}/nas\n")
    transport = RcloneTransport(RcloneTarget("lab", "root", str(conf)), children=children)
    try:
        marker_id = transport.bind()
        conf.write_text(f"[lab]\ntype = cache\nremote = {tmp_path}/nas\n")
        with pytest.raises(DestinationUnreachableError, match=ITS_OWN):
            transport.require_marker(expected_marker_id=marker_id)
    finally:
        transport.close()


def test_rclone_has_no_wrapper_that_is_neither_known_good_nor_refused(conf: Path) -> None:
    """A new rclone may bring one: then somebody has to look at it."""
    argv = [str(RCLONE), "config", "providers", "--config", os.devnull]
    providers = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    wrappers = {
        provider["Name"]
        for provider in providers
        if {"remote", "upstreams"} & {option["Name"] for option in provider["Options"] or ()}
    }
    refused = set()
    for name in wrappers:
        try:
            read(conf, f"type = {name}\nremote = nas:x")
        except TransportError:
            refused.add(name)
    assert wrappers - refused == {"alias", "chunker", "combine", "crypt", "hasher"}
    assert refused == {"archive", "cache", "compress", "union"}
