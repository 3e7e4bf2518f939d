"""Encoders by name: from a Hugging Face cache that is already there, else from the hub, checked and resumable.

    xlm-roberta-base, xlm-roberta-large, org/name, org/name@revision

The cache is huggingface_hub's own (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so what either has
downloaded serves both: CACHE/models--org--name/snapshots/COMMIT/FILE, and refs/BRANCH holds the commit of a branch.
"""
import os
import re
from pathlib import Path

from .. import UserError
from .download import NotFound, download, open_url
from .files import writing

CONFIG, WEIGHTS, OLD_WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "pytorch_model.bin", "sentencepiece.bpe.model"
PINNED = {  # repository: (commit, {file: (bytes, sha256)}); of other files and repositories the hub itself says the sha256
    "FacebookAI/xlm-roberta-base": ("e73636d4f797dec63c3081bb6ed5c7b0bb3f2089", {
        CONFIG: (615, "d66ed8cd4f2a93b358c245e50736fa389ed4f35c0bae7aad0b32abb20c62b579"),
        WEIGHTS: (1115567652, "6fd4797bc397c3b8b55d6bb5740366b57e6a3ce91c04c77f22aafc0c128e6feb"),
        TOKENIZER: (5069051, "cfc8146abe2a0488e9e2a0c56de7952f7c11ab059eca145a0a727afce0db2865")}),
    "FacebookAI/xlm-roberta-large": ("c23d21b0620b635a76227c604d44e43a9f0ee389", {})}
OLD_NAMES = {"xlm-roberta-base": "FacebookAI/xlm-roberta-base", "xlm-roberta-large": "FacebookAI/xlm-roberta-large"}


def parse(name):
    """A name -> (repository, revision or None), or None if it cannot be one of the hub's."""
    part = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
    match = re.fullmatch(rf"({part}/{part})(?:@({part}))?", OLD_NAMES.get(name, name))
    return match and match.groups()


def cache_folder():
    """Where huggingface_hub keeps its files, by its environment variables."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def missing(folder):
    """The first of an encoder's files that a folder lacks, or None."""
    for file in (CONFIG, TOKENIZER):
        if not (folder / file).is_file():
            return file
    return None if (folder / WEIGHTS).is_file() or (folder / OLD_WEIGHTS).is_file() else WEIGHTS


def is_commit(revision):
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def head(url):
    """-> the headers that the server would send, its body unread."""
    response, headers = open_url(url, "HEAD")
    response.close()
    return headers


def snapshot(name, check_config):
    """-> folder with an encoder's files, downloaded if need be.

    check_config: called with the path of config.json before a gigabyte is fetched for nothing. Raises UserError.
    """
    repository, revision = parse(name)
    commit, files = PINNED.get(repository, ("main", {}))       # of a repository that is not pinned: its branch main
    wanted = [revision] if revision else [commit, "main"]      # any copy in the cache is welcome unless one is named
    names = [repository] + [old for old, new in OLD_NAMES.items() if new == repository]
    for repo in (cache_folder() / f"models--{n.replace('/', '--')}" for n in names):
        for rev in wanted:
            ref = repo / "refs" / rev
            folder = repo / "snapshots" / (ref.read_text().strip() if ref.is_file() else rev)
            if folder.is_dir() and not missing(folder):
                return folder

    repo, revision = cache_folder() / f"models--{repository.replace('/', '--')}", wanted[0]
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        folder = repo / "snapshots" / revision
        raise UserError(f"{folder / (missing(folder) or WEIGHTS)} is not there, and HF_HUB_OFFLINE forbids to download it")
    address = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{repository}/resolve"
    if not is_commit(revision):
        branch, revision = revision, head(f"{address}/{revision}/{CONFIG}").get("x-repo-commit", "")
        if not is_commit(revision):
            raise UserError(f"{address}/{branch}: the server does not say which commit this is; name one: {repository}@COMMIT")
        with writing(repo / "refs" / branch) as file:
            file.write(revision)
    folder = repo / "snapshots" / revision
    files = files if revision == commit else {}

    def fetch(file):
        if not (folder / file).exists():
            url = f"{address}/{revision}/{file}"
            if file in files:
                size, sha256 = files[file]
            else:  # files in large file storage are named by their sha256
                headers = head(url)
                size, sha256 = headers.get("x-linked-size"), headers.get("x-linked-etag", "").strip('"')
                size, sha256 = size and int(size), sha256 if re.fullmatch("[0-9a-f]{64}", sha256) else None
            download(url, folder / file, size, sha256)

    fetch(CONFIG)
    check_config(folder / CONFIG)
    fetch(TOKENIZER)
    if not (folder / OLD_WEIGHTS).exists():
        try:
            fetch(WEIGHTS)
        except NotFound:  # an older repository
            fetch(OLD_WEIGHTS)
    return folder
