"""Encoders by name: from a Hugging Face cache if one has them, else from the hub.

    xlm-roberta-base, multilingual-e5-small, ..., org/name, org/name@revision

The cache is huggingface_hub's own, so what either program has downloaded serves both:
CACHE/models--org--name/snapshots/COMMIT/FILE holds a file, refs/BRANCH the commit of a branch.
https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""
import os
import re
from pathlib import Path

from .. import UserError
from .download import NotFound, download, open_url
from .files import writing

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
OLD_WEIGHTS = "pytorch_model.bin"
TOKENIZER = "sentencepiece.bpe.model"

# Repository: (commit, {file: (bytes, sha256)}). Of other files the hub itself says the sha256.
PINNED = {
    "FacebookAI/xlm-roberta-base": ("e73636d4f797dec63c3081bb6ed5c7b0bb3f2089", {
        CONFIG: (615, "d66ed8cd4f2a93b358c245e50736fa389ed4f35c0bae7aad0b32abb20c62b579"),
        WEIGHTS: (1115567652, "6fd4797bc397c3b8b55d6bb5740366b57e6a3ce91c04c77f22aafc0c128e6feb"),
        TOKENIZER: (5069051, "cfc8146abe2a0488e9e2a0c56de7952f7c11ab059eca145a0a727afce0db2865"),
    }),
    "FacebookAI/xlm-roberta-large": ("c23d21b0620b635a76227c604d44e43a9f0ee389", {}),
    "intfloat/multilingual-e5-small": ("614241f622f53c4eeff9890bdc4f31cfecc418b3", {
        CONFIG: (655, "69137736cab8b8903a07fe8afaafdda25aac55415a12a55d1bffa9f581abf959"),
        WEIGHTS: (470641600, "1a55775f53449dac10a2bcbc312469fac40b96d53198c407081a831f81c98477"),
        TOKENIZER: (5069051, "cfc8146abe2a0488e9e2a0c56de7952f7c11ab059eca145a0a727afce0db2865"),
    }),
}
SHORT_NAMES = {
    "xlm-roberta-base": "FacebookAI/xlm-roberta-base",
    "xlm-roberta-large": "FacebookAI/xlm-roberta-large",
    "multilingual-e5-small": "intfloat/multilingual-e5-small",
    "multilingual-e5-base": "intfloat/multilingual-e5-base",
    "multilingual-e5-large": "intfloat/multilingual-e5-large",
}


# ---- names ---------------------------------------------------------------------------------------

def parse(name):
    """A name -> (repository, revision or None), or None if it cannot be one of the hub's."""
    part = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
    match = re.fullmatch(rf"({part}/{part})(?:@({part}))?", SHORT_NAMES.get(name, name))
    return match.groups() if match else None


def is_commit(revision):
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


# ---- the cache on this machine -------------------------------------------------------------------

def cache_folder():
    """Where huggingface_hub keeps its files, by its environment variables."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches).expanduser() / "huggingface" / "hub"


def offline():
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def repository_folder(repository):
    return cache_folder() / f"models--{repository.replace('/', '--')}"


def missing(folder):
    """The first of an encoder's files that a folder lacks, or None."""
    for file in (CONFIG, TOKENIZER):
        if not (folder / file).is_file():
            return file
    has_weights = (folder / WEIGHTS).is_file() or (folder / OLD_WEIGHTS).is_file()
    return None if has_weights else WEIGHTS


def find_in_cache(repository, revisions):
    """-> the folder of the first of these revisions that the cache has whole, or None."""
    # Caches from before XLM-R moved to FacebookAI/ have it under its short name.
    old_names = [short for short, full in SHORT_NAMES.items() if full == repository]
    for name in [repository, *old_names]:
        repo = repository_folder(name)
        for revision in revisions:
            ref = repo / "refs" / revision
            commit = ref.read_text().strip() if ref.is_file() else revision
            folder = repo / "snapshots" / commit
            if folder.is_dir() and not missing(folder):
                return folder
    return None


# ---- the hub -------------------------------------------------------------------------------------

def snapshot(name, check_config):
    """A name on the hub -> the folder with the encoder's files, downloaded if need be.

    check_config: called with the path of config.json, to raise before a gigabyte is fetched for
    nothing. Raises UserError.
    """
    repository, revision = parse(name)
    pinned, known = PINNED.get(repository, ("main", {}))
    # Any copy in the cache is welcome, unless a revision is named.
    revisions = [revision] if revision else [pinned, "main"]
    folder = find_in_cache(repository, revisions)
    if folder:
        return folder

    repo = repository_folder(repository)
    revision = revisions[0]
    if offline():
        folder = repo / "snapshots" / revision
        raise UserError(f"{folder / (missing(folder) or WEIGHTS)} is not there, "
                        "and HF_HUB_OFFLINE forbids to download it")
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    address = f"{host}/{repository}/resolve"
    if not is_commit(revision):
        branch = revision
        revision = commit_of(address, branch, repository)
        with writing(repo / "refs" / branch) as file:
            file.write(revision)
    if revision != pinned:
        known = {}

    folder = repo / "snapshots" / revision
    address = f"{address}/{revision}"
    fetch(address, folder, CONFIG, known)
    check_config(folder / CONFIG)
    fetch(address, folder, TOKENIZER, known)
    if not (folder / OLD_WEIGHTS).exists():
        try:
            fetch(address, folder, WEIGHTS, known)
        except NotFound:  # a repository from before safetensors
            fetch(address, folder, OLD_WEIGHTS, known)
    return folder


def commit_of(address, branch, repository):
    """A branch -> the commit that it stands at, as the server says. Raises UserError."""
    commit = head(f"{address}/{branch}/{CONFIG}").get("x-repo-commit", "")
    if not is_commit(commit):
        raise UserError(f"{address}/{branch}: the server does not say which commit this is; "
                        f"name one: {repository}@COMMIT")
    return commit


def fetch(address, folder, file, known):
    """Downloads address/file to folder/file, unless it is there.

    known: {file: (bytes, sha256)}; of others the server is asked. Raises UserError.
    """
    if (folder / file).exists():
        return
    url = f"{address}/{file}"
    size, sha256 = known[file] if file in known else size_and_sha256(url)
    download(url, folder / file, size, sha256)


def size_and_sha256(url):
    """-> (bytes, sha256) as the hub says, either None if it does not.

    It does of large files: they are stored under their sha256, small ones under git's hash.
    """
    headers = head(url)
    size = headers.get("x-linked-size")
    sha256 = headers.get("x-linked-etag", "").strip('"')
    return (int(size) if size else None,
            sha256 if re.fullmatch("[0-9a-f]{64}", sha256) else None)


def head(url):
    """-> the headers that the server would send, its body unread."""
    response, headers = open_url(url, "HEAD")
    response.close()
    return headers
