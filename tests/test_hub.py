"""Encoders by name, from a hub on this machine and from caches as huggingface_hub leaves them.

The hub has the real one's layout.
"""
import hashlib
import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from conftest import refused
from loopback import serve
from test_tokenizer import tokenizer_json

from minirosprompt import UserError
from minirosprompt.classifier import load_encoder
from minirosprompt.io import download as module
from minirosprompt.io import hub
from minirosprompt.io.pieces import TOKENIZER_JSON
from minirosprompt.io.safetensors import read_safetensors, write_safetensors
from minirosprompt.io.weights import encoder_folder
from minirosprompt.tokenizer import Tokenizer
from minirosprompt.xlmr import XLMR

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "some-org/tiny_xlmr"
CACHED = "models--some-org--tiny_xlmr"
FILES = (hub.CONFIG, hub.WEIGHTS, hub.TOKENIZER)
VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HF_TOKEN",
             "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN",
             "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@pytest.fixture()
def cache(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "PAUSES", (0.01,) * 4)
    return tmp_path / "cache"


@pytest.fixture()
def site(cache, tiny, monkeypatch):
    """A hub with one repository: the tiny encoder.

    Large files lie on another host, behind a redirect, as they really do.
    """
    with serve() as site, serve() as store:
        monkeypatch.setenv("HF_ENDPOINT", site.url + "/")
        site.store = store
        for revision in ("main", COMMIT):
            for file in FILES:
                body = (tiny / file).read_bytes()
                publish(site, store, revision, file, body, large=file != hub.CONFIG)
        yield site


def publish(site, store, revision, file, body, large, repo=REPO):
    path = f"/{repo}/resolve/{revision}/{file}"
    headers = {"X-Repo-Commit": COMMIT}
    if large:
        sha256 = hashlib.sha256(body).hexdigest()
        store.files[f"/blobs/{sha256}"] = body
        site.moved[path] = f"{store.url}/blobs/{sha256}?X-Amz-Signature=a%2Fb"
        store.files[f"/blobs/{sha256}?X-Amz-Signature=a%2Fb"] = body
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(body))}
    else:
        site.files[path] = body
    site.headers[path] = headers


def same(folder, tiny):
    return all((folder / file).read_bytes() == (tiny / file).read_bytes() for file in FILES)


def assert_same_weights(one, two):
    """Of two encoders, by name."""
    want = XLMR.from_pretrained(two).state_dict()
    for name, weight in XLMR.from_pretrained(one).state_dict().items():
        assert torch.equal(weight, want[name]), name


def address_of_weights(site, tiny):
    """The signed address under which the other host has model.safetensors."""
    weights = (tiny / hub.WEIGHTS).read_bytes()
    return next(p for p in site.store.files if "?" in p and site.store.files[p] == weights)


@pytest.mark.parametrize(
    "name, parsed",
    [
        ("xlm-roberta-base", ("FacebookAI/xlm-roberta-base", None)),
        ("a/b", ("a/b", None)),
        ("a/b.c@v1.0", ("a/b.c", "v1.0")),
        ("pocket", None),
        ("a/b/c", None),
        ("../b", None),
        ("a/..", None),
        ("a/b@../../x", None),
        ("/etc/passwd", None),
        ("a/b@", None),
        ("a b/c", None),
        ("./models", None),
    ],
)
def test_names(name, parsed):
    assert hub.parse(name) == parsed


@pytest.mark.parametrize("name", [REPO, f"{REPO}@{COMMIT}", f"{REPO}@main"])
def test_download_once_then_from_the_cache(site, cache, tiny, name):
    folder = encoder_folder(name)
    assert folder == cache / CACHED / "snapshots" / COMMIT
    assert same(folder, tiny)
    asked = len(site.requests)
    assert encoder_folder(name) == folder
    assert len(site.requests) == asked
    assert_same_weights(name, tiny)
    assert site.agent == {"minirosprompt"}


def test_stumbling_hub(site, tiny):
    weights = address_of_weights(site, tiny)
    site.store.faults[weights] = [503, "cut"]
    site.faults[f"/{REPO}/resolve/main/{hub.CONFIG}"] = [503]
    assert same(encoder_folder(REPO), tiny)
    assert site.store.gets(weights)[-1].startswith("bytes=")


def test_damaged_weights_are_refused_by_the_hubs_own_hash(site, cache, tiny):
    weights = address_of_weights(site, tiny)
    site.store.files[weights] = site.store.files[weights][:-1] + b"!"
    with pytest.raises(UserError, match="size or sha256"):
        encoder_folder(REPO)
    assert not (cache / CACHED / "snapshots" / COMMIT / hub.WEIGHTS).exists()


def test_pinned_table(site, tiny, monkeypatch):
    sizes = {}
    for file in (hub.CONFIG, hub.WEIGHTS):
        body = (tiny / file).read_bytes()
        sizes[file] = (len(body), hashlib.sha256(body).hexdigest())
    monkeypatch.setitem(hub.PINNED, REPO, (COMMIT, sizes))
    assert same(encoder_folder(REPO), tiny)
    shutil.rmtree(hub.cache_folder())
    size, _ = sizes[hub.WEIGHTS]
    wrong = sizes | {hub.WEIGHTS: (size, "0" * 64)}
    monkeypatch.setitem(hub.PINNED, REPO, (COMMIT, wrong))
    with pytest.raises(UserError, match="size or sha256"):
        encoder_folder(REPO)


def test_bin_only(site, cache, tiny):
    tensors = {k: v.clone() for k, v in read_safetensors(tiny / hub.WEIGHTS)[0].items()}
    torch.save(tensors, cache.parent / "weights.bin")
    body = (cache.parent / "weights.bin").read_bytes()
    publish(site, site.store, COMMIT, hub.OLD_WEIGHTS, body, large=True)
    del site.moved[f"/{REPO}/resolve/{COMMIT}/{hub.WEIGHTS}"]
    folder = encoder_folder(REPO)
    assert (folder / hub.OLD_WEIGHTS).read_bytes() == body
    assert not (folder / hub.WEIGHTS).exists()
    assert_same_weights(REPO, tiny)
    asked = len(site.requests)
    assert encoder_folder(REPO) == folder
    assert len(site.requests) == asked


@pytest.mark.parametrize(
    "config, why",
    [
        ({"model_type": "roberta"}, "another tokenizer"),
        ({"model_type": "xlm-roberta-xl"}, "pre-LN"),
        ({"model_type": "modernbert"}, "rotary positions"),
        ({"model_type": "bert"}, "'bert' with XLM-R's tokenizer"),
        ({"model_type": "llama"}, "a decoder"),
        ({"model_type": "mamba"}, "another architecture"),
    ],
)
def test_other_encoders_are_refused_before_their_weights_are_fetched(site, tiny, config, why):
    path = f"/{REPO}/resolve/{COMMIT}/{hub.CONFIG}"
    site.files[path] = json.dumps(json.loads((tiny / hub.CONFIG).read_text()) | config).encode()
    with pytest.raises(UserError, match=why) as error:
        encoder_folder(REPO)
    assert "\n" not in str(error.value)
    assert not site.store.requests


@pytest.mark.parametrize("page", [b"<html>welcome to our network</html>", b"", b'"not found"'])
@pytest.mark.parametrize("file", [hub.CONFIG, hub.TOKENIZER, TOKENIZER_JSON, hub.INDEX,
                                  hub.OLD_INDEX])
def test_a_wrong_page_with_status_200_is_not_kept(site, cache, tiny, file, page):
    """Before, a network's login page stayed as config.json, and every later try failed on it."""
    path = f"/{REPO}/resolve/{COMMIT}/{file}"
    if file == TOKENIZER_JSON:
        del site.moved[f"/{REPO}/resolve/{COMMIT}/{hub.TOKENIZER}"]
    elif file in (hub.INDEX, hub.OLD_INDEX):
        del site.moved[f"/{REPO}/resolve/{COMMIT}/{hub.WEIGHTS}"]
    right = site.moved.pop(path, None)
    good = site.files.get(path)
    site.files[path] = page
    site.headers.pop(path, None) if file == hub.TOKENIZER else None
    name = f"{REPO}@{COMMIT}"
    kept = cache / CACHED / "snapshots" / COMMIT / file
    with pytest.raises(UserError, match=f"{file}: .*and deleted; look at your connection") as error:
        encoder_folder(name)
    assert "\n" not in str(error.value)
    assert not kept.exists()
    kept.write_bytes(page)  # by an earlier version
    with pytest.raises(UserError, match=f"{file}: .*; delete it, and it is fetched anew"):
        encoder_folder(name)
    kept.unlink()
    if good or right:  # as the real hub serves it
        site.files.pop(path)
        site.files |= {path: good} if good else {}
        site.moved |= {path: right} if right else {}
        assert same(encoder_folder(name), tiny)


def test_offline_and_unknown(site, cache, tiny, monkeypatch):
    with pytest.raises(UserError, match="HTTP 404.*HF_TOKEN"):
        encoder_folder("some-org/unknown")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=f"{CACHED} is not there, and HF_HUB_OFFLINE forbids"):
        encoder_folder(REPO)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    folder = encoder_folder(REPO)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "YES")
    asked = len(site.requests)
    assert encoder_folder(REPO) == folder
    (folder / hub.WEIGHTS).unlink()
    for name in (REPO, f"{REPO}@main", f"{REPO}@{COMMIT}"):
        with pytest.raises(UserError, match=f"{COMMIT}/{hub.WEIGHTS} is not there, and TRANSF"):
            encoder_folder(name)
    for revision, path in (("v2", "refs/v2"), ("1" * 40, "snapshots/" + "1" * 40)):
        with pytest.raises(UserError, match=f"{CACHED}/{path} is not there"):
            encoder_folder(f"{REPO}@{revision}")
    assert len(site.requests) == asked
    monkeypatch.delenv("TRANSFORMERS_OFFLINE")
    assert same(encoder_folder(REPO), tiny)  # only what is missing comes


def test_a_whole_snapshot_without_refs_is_found(site, cache, tiny, monkeypatch):
    """As in a cache that was copied without them; but not in the place of a named branch."""
    folder = encoder_folder(REPO)
    shutil.rmtree(cache / CACHED / "refs")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert encoder_folder(REPO) == folder
    assert encoder_folder(f"{REPO}@{COMMIT}") == folder
    with pytest.raises(UserError, match="refs/main is not there"):
        encoder_folder(f"{REPO}@main")
    (folder / hub.TOKENIZER).unlink()
    with pytest.raises(UserError, match=f"{COMMIT}/{hub.TOKENIZER} is not there"):
        encoder_folder(REPO)


def test_a_mirror_that_does_not_name_the_commit(site):
    del site.headers[f"/{REPO}/resolve/main/{hub.CONFIG}"]["X-Repo-Commit"]
    with pytest.raises(UserError, match="does not say which commit"):
        encoder_folder(REPO)
    encoder_folder(f"{REPO}@{COMMIT}")


@pytest.fixture()
def mirror(site, monkeypatch):
    """A host that has nothing itself, and sends everybody on to the hub."""
    with serve() as mirror:
        mirror.redirect = 308
        for path in [*site.files, *site.moved]:
            mirror.moved[path] = site.url + path
        monkeypatch.setenv("HF_ENDPOINT", mirror.url)
        yield mirror


@pytest.mark.parametrize("name", [REPO, f"{REPO}@{COMMIT}"])
def test_a_mirror_that_redirects_to_the_hub(mirror, site, cache, tiny, monkeypatch, name):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert same(encoder_folder(name), tiny)
    assert mirror.tokens == {"Bearer hf_secret"}
    assert site.tokens == site.store.tokens == {None}
    shutil.rmtree(cache)
    weights = address_of_weights(site, tiny)
    site.store.files[weights] = site.store.files[weights][:-1] + b"!"
    with pytest.raises(UserError, match="size or sha256"):
        encoder_folder(name)
    assert not (cache / CACHED / "snapshots" / COMMIT / hub.WEIGHTS).exists()


@pytest.mark.parametrize("name", [REPO, f"{REPO}@{COMMIT}"])
def test_weights_are_not_taken_unchecked(site, cache, tiny, name):
    del site.headers[f"/{REPO}/resolve/{COMMIT}/{hub.WEIGHTS}"]["X-Linked-Etag"]
    with pytest.raises(UserError, match="does not say its sha256"):
        encoder_folder(name)
    assert not (cache / CACHED / "snapshots" / COMMIT / hub.WEIGHTS).exists()


def test_the_token_opens_a_private_repository(site, tiny, monkeypatch):
    site.private = "Bearer hf_secret"
    with pytest.raises(UserError, match="HTTP 401.*HF_TOKEN=... opens a private one"):
        encoder_folder(REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="the token given does not open it") as error:
        encoder_folder(REPO)
    assert "hf_wrong" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", " hf_secret\n")
    assert same(encoder_folder(REPO), tiny)
    assert site.store.tokens == {None}


def test_where_the_token_is(tmp_path, cache, monkeypatch):
    assert hub.access_token() is None
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("hf_file\n")  # of `hf auth login`
    assert hub.access_token() == "hf_file"
    (tmp_path / "other").write_text("hf_other")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "other"))
    assert hub.access_token() == "hf_other"
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_old")
    assert hub.access_token() == "hf_old"
    monkeypatch.setenv("HF_TOKEN", "hf_new")
    assert hub.access_token() == "hf_new"
    monkeypatch.setenv("HF_TOKEN", "two\nlines")
    with pytest.raises(UserError, match="holds no token") as error:
        hub.access_token()
    assert "two" not in str(error.value)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert hub.access_token() is None


def in_shards(tiny, folder):
    """The tiny encoder's weights in two files and an index, as transformers saves large ones."""
    tensors, _ = read_safetensors(tiny / hub.WEIGHTS)
    table = {}
    for n in (1, 2):
        part = {name: tensors[name] for name in list(tensors)[n - 1::2]}
        write_safetensors(folder / f"model-{n}-of-2.safetensors", part)
        table |= {name: f"model-{n}-of-2.safetensors" for name in part}
    (folder / hub.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": table}))


def test_shards_and_a_tokenizer_of_transformers(site, cache, tiny, tmp_path, monkeypatch):
    """Neither model.safetensors nor sentencepiece.bpe.model, as in what is saved today."""
    in_shards(tiny, tmp_path)
    (tmp_path / TOKENIZER_JSON).write_text(json.dumps(tokenizer_json(tiny)))
    for file in (hub.WEIGHTS, hub.TOKENIZER):
        del site.moved[f"/{REPO}/resolve/{COMMIT}/{file}"]
    new = (hub.INDEX, TOKENIZER_JSON, "model-1-of-2.safetensors", "model-2-of-2.safetensors")
    for file in new:
        large = file.endswith(".safetensors")
        publish(site, site.store, COMMIT, file, (tmp_path / file).read_bytes(), large)
    folder = encoder_folder(REPO)
    assert all((folder / file).exists() for file in new)
    assert_same_weights(REPO, tiny)
    encoder, tokenizer = load_encoder(REPO)
    assert tokenizer.encode("apple sky") == Tokenizer(tiny / hub.TOKENIZER).encode("apple sky")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert encoder_folder(REPO) == folder
    (folder / "model-2-of-2.safetensors").unlink()
    with pytest.raises(UserError, match=f"{COMMIT}/model-2-of-2.safetensors is not there"):
        encoder_folder(REPO)


def test_another_tokenizer_is_refused_before_the_weights_are_fetched(site, tiny):
    path = f"/{REPO}/resolve/{COMMIT}/"
    del site.moved[path + hub.TOKENIZER]
    site.files[path + TOKENIZER_JSON] = b'{"model": {"type": "WordPiece"}}'
    with pytest.raises(UserError, match="not XLM-R's kind of tokenizer"):
        encoder_folder(REPO)
    assert not site.store.requests


def test_xlm_roberta_base_in_an_older_cache(cache, tiny, monkeypatch):
    """From before the repository moved to FacebookAI/, of another commit than the pinned one."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    old = cache / "models--xlm-roberta-base"
    shutil.copytree(tiny, old / "snapshots" / COMMIT)
    (old / "refs").mkdir()
    (old / "refs" / "main").write_text(COMMIT)
    assert encoder_folder("xlm-roberta-base") == old / "snapshots" / COMMIT
    assert encoder_folder("FacebookAI/xlm-roberta-base") == old / "snapshots" / COMMIT
    # but not in the place of a revision that was asked for
    with pytest.raises(UserError, match="127.0.0.1:9"):
        encoder_folder("FacebookAI/xlm-roberta-base@" + "1" * 40)


@pytest.mark.parametrize(
    "env, folder",
    [
        ({"HF_HUB_CACHE": "/a", "HUGGINGFACE_HUB_CACHE": "/d"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/d", "HF_HOME": "/b"}, "/d"),
        ({"HUGGINGFACE_HUB_CACHE": "~/d"}, "HOME/d"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HF_HUB_CACHE": "$HF_HOME/x", "HF_HOME": "/b"}, "/b/x"),
        ({}, "HOME/.cache/huggingface/hub"),
    ],
)
def test_where_the_cache_is(cache, monkeypatch, env, folder):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert hub.cache_folder() == Path(folder.replace("HOME", str(Path.home())))
    assert str(hub.cache_folder()) == of_huggingface_hub()["HF_HUB_CACHE"]


@pytest.mark.parametrize(
    "env, forbids",
    [
        ({}, None),
        ({"HF_HUB_OFFLINE": "on"}, "HF_HUB_OFFLINE"),
        ({"TRANSFORMERS_OFFLINE": "1"}, "TRANSFORMERS_OFFLINE"),
        ({"TRANSFORMERS_OFFLINE": "no"}, None),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, None),
        ({"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "1"}, "TRANSFORMERS_OFFLINE"),
    ],
)
def test_what_forbids_the_network(cache, monkeypatch, env, forbids):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert hub.offline() == forbids
    assert of_huggingface_hub()["HF_HUB_OFFLINE"] is (forbids is not None)


def of_huggingface_hub():
    """What huggingface_hub makes of the environment. It looks once, so its file is run anew."""
    constants = pytest.importorskip("huggingface_hub.constants")
    return runpy.run_path(constants.__file__)


def test_huggingface_hub_and_we_read_each_others_cache(site, cache, tiny, monkeypatch):
    library = pytest.importorskip("huggingface_hub")
    # It looks at the environment once, when it is imported, and another test may have done that.
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for file in FILES:
        library.hf_hub_download(REPO, file, cache_dir=cache, endpoint=site.url)
    asked = len(site.requests)
    folder = encoder_folder(REPO)  # symbolic links into blobs/
    assert folder == cache / CACHED / "snapshots" / COMMIT
    assert same(folder, tiny)
    assert len(site.requests) == asked
    shutil.rmtree(cache)
    folder = encoder_folder(REPO)  # plain files, ours
    for file in FILES:
        found = library.hf_hub_download(REPO, file, cache_dir=cache, local_files_only=True)
        assert Path(found) == folder / file


def test_the_script(site, run_script, colours):
    done = run_script("data_scripts/download_encoder.py", REPO)
    assert done.returncode == 0, done.stderr
    assert "2 layers, 32 wide" in done.stdout, done.stderr
    short = ["--steps", 2, "--seeds", 0, "--objective", "erm", "--shots", 1, "--name", "x"]
    done = run_script("train.py", "--encoder", REPO, "--data", colours, *short)
    assert done.returncode == 0, done.stderr
    refused(run_script("data_scripts/download_encoder.py", "some-org/unknown"), "HTTP 404")
    done = run_script("data_scripts/download_encoder.py", "nowhere")
    refused(done, "nor a name such as xlm-roberta-base")
