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
from .files import read_json, writing
from .pieces import TOKENIZER_JSON, check_model, read_model

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
OLD_WEIGHTS = "pytorch_model.bin"
OLD_INDEX = "pytorch_model.bin.index.json"
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
    # HUGGINGFACE_HUB_CACHE is the older name of the first.
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return expand(named) if named else home_folder() / "hub"


def home_folder():
    if os.environ.get("HF_HOME"):
        return expand(os.environ["HF_HOME"])
    return expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"


def expand(path):
    return Path(os.path.expandvars(path)).expanduser()


def is_true(name):
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


def offline():
    """-> the variable that forbids the network, or None. The first one that is set counts."""
    name = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    return name if is_true(name) else None


def access_token():
    """-> what opens private repositories, or None: a variable, or what `hf auth login` has left."""
    if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    file = expand(os.environ.get("HF_TOKEN_PATH") or home_folder() / "token")
    if not token and file.is_file():
        token = file.read_text(encoding="utf-8", errors="replace")
    token = (token or "").strip()
    if token and not re.fullmatch("[!-~]+", token):
        raise UserError("HF_TOKEN (or the file of hf auth login) holds no token: "
                        "it has blanks or letters that none has")
    return token or None


def repository_folder(repository):
    return cache_folder() / f"models--{repository.replace('/', '--')}"


def missing(folder):
    """The first of an encoder's files that a folder lacks, or None."""
    def has(file):
        return (folder / file).is_file()

    if not has(CONFIG):
        return CONFIG
    if not has(TOKENIZER) and not has(TOKENIZER_JSON):
        return TOKENIZER
    if has(WEIGHTS) or has(OLD_WEIGHTS):
        return None
    index = next((index for index in (INDEX, OLD_INDEX) if has(index)), None)
    files = sorted(set(shards(folder / index).values())) if index else [WEIGHTS]
    return next((file for file in files if not has(file)), None)


def shards(index):
    """model.safetensors.index.json, or .bin's -> {name of a tensor: the file that holds it}"""
    files = read_json(index).get("weight_map")
    ending = "bin" if Path(index).name == OLD_INDEX else "safetensors"
    if not isinstance(files, dict) or not files \
            or not all(is_shard(file, ending) for file in files.values()):
        raise UserError(f"{index}: its weight_map does not name files of its folder")
    return files


def is_shard(file, ending):
    name = rf"[\w-][\w.-]*\.{ending}"
    return isinstance(file, str) and re.fullmatch(name, file) is not None


def folders_in_cache(repository, revisions):
    """-> where the cache can have a repository, the best place first.

    revisions: a list; None is the one that we know, or main, or whatever is there.
    """
    pinned, _ = PINNED.get(repository, ("main", {}))
    # Caches from before XLM-R moved to FacebookAI/ have it under its short name.
    old_names = [short for short, full in SHORT_NAMES.items() if full == repository]
    folders = []
    for name in [repository, *old_names]:
        repo = repository_folder(name)
        for revision in revisions or [pinned, "main"]:
            ref = repo / "refs" / revision
            commit = ref.read_text().strip() if ref.is_file() else revision
            folders.append(repo / "snapshots" / commit)
        if revisions is None:  # a cache that was copied from elsewhere may have lost its refs/
            folders += sorted((repo / "snapshots").glob("*"), key=os.path.getmtime, reverse=True)
    return folders


def find_in_cache(repository, revisions=None):
    """-> the first of folders_in_cache that is whole, or None."""
    for folder in folders_in_cache(repository, revisions):
        try:
            if folder.is_dir() and not missing(folder):
                return folder
        except UserError as error:  # an index that is none
            raise UserError(f"{error}; delete it, and it is fetched anew") from None
    return None


def not_in_cache(repository, revisions):
    """-> the path that find_in_cache looked for in vain, for a message."""
    for folder in folders_in_cache(repository, revisions):
        if folder.is_dir():
            return folder / missing(folder)
    repo = repository_folder(repository)
    if not repo.is_dir():
        return repo
    revision = revisions[0] if revisions else "main"
    return repo / ("snapshots" if is_commit(revision) else "refs") / revision


# ---- the hub -------------------------------------------------------------------------------------

def snapshot(name, check_config):
    """A name on the hub -> the folder with the encoder's files, downloaded if need be.

    check_config: called with the path of config.json, to raise before a gigabyte is fetched for
    nothing. Raises UserError.
    """
    repository, revision = parse(name)
    pinned, known = PINNED.get(repository, ("main", {}))
    # Any copy in the cache is welcome, unless a revision is named.
    revisions = [revision] if revision else None
    folder = find_in_cache(repository, revisions)
    if folder:
        return folder
    if offline():
        raise UserError(f"{not_in_cache(repository, revisions)} is not there, "
                        f"and {offline()} forbids to download it")

    repo = repository_folder(repository)
    revision = revision or pinned
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
    fetch_one_of(address, folder, (TOKENIZER, TOKENIZER_JSON), known)
    read_model(folder / TOKENIZER)
    weights = fetch_one_of(address, folder, (WEIGHTS, INDEX, OLD_WEIGHTS, OLD_INDEX), known)
    if weights in (INDEX, OLD_INDEX):
        for file in sorted(set(shards(folder / weights).values())):
            fetch(address, folder, file, known)
    return folder


def commit_of(address, branch, repository):
    """A branch -> the commit that it stands at, as the server says. Raises UserError."""
    commit = head(f"{address}/{branch}/{CONFIG}", "x-repo-commit").get("x-repo-commit", "")
    if not is_commit(commit):
        raise UserError(f"{address}/{branch}: the server does not say which commit this is; "
                        f"name one: {repository}@COMMIT")
    return commit


def fetch_one_of(address, folder, files, known):
    """Downloads the first of these files that the repository has, unless one is there. -> its name

    Raises UserError.
    """
    there = [file for file in files if (folder / file).exists()]
    if there:
        check(folder / there[0], new=False)
        return there[0]
    absent = None
    for file in files:
        try:
            fetch(address, folder, file, known)
            return file
        except NotFound as error:
            absent = absent or error
    raise absent


def fetch(address, folder, file, known):
    """Downloads address/file to folder/file, unless it is there.

    known: {file: (bytes, sha256)}; of others the server is asked. Raises UserError.
    """
    if (folder / file).exists():
        check(folder / file, new=False)
        return
    url = f"{address}/{file}"
    size, sha256 = known[file] if file in known else size_and_sha256(url)
    if sha256 is None and file.endswith((".safetensors", ".bin")):
        raise UserError(f"{url}: the server does not say its sha256, and weights are not taken "
                        "unchecked; name another host (HF_ENDPOINT), or bring the files into a "
                        "folder and name that")
    download(url, folder / file, size, sha256, access_token())
    check(folder / file, new=True)


def check(path, new):
    """Raises UserError for what a server may send in a small file's place, such as a login page.

    new: it has just come; then it is deleted. Else the message says that it is to be.
    """
    read = {CONFIG: read_json, INDEX: shards, OLD_INDEX: shards, TOKENIZER_JSON: read_json,
            TOKENIZER: check_model}.get(path.name)
    try:
        if read:
            read(path)
    except UserError as error:
        if not new:
            raise UserError(f"{error}; delete it, and it is fetched anew") from None
        path.unlink()
        raise UserError(f"{error}: not what was asked for, and deleted; look at your connection, "
                        "and try again") from None


def size_and_sha256(url):
    """-> (bytes, sha256) as the hub says, either None if it does not.

    It does of large files: they are stored under their sha256, small ones under git's hash.
    """
    headers = head(url, "x-linked-etag")
    size = headers.get("x-linked-size", "")
    sha256 = headers.get("x-linked-etag", "").strip('"')
    return (int(size) if size.isdecimal() else None,
            sha256 if re.fullmatch("[0-9a-f]{64}", sha256) else None)


def head(url, wanted):
    """-> the headers that the server would send, its body unread. wanted: the one that matters."""
    token = access_token()
    try:
        response, headers = open_url(url, "HEAD", token=token, until=wanted)
    except NotFound as error:
        remedy = "the token given does not open it" if token else "HF_TOKEN=... opens a private one"
        raise NotFound(f"{error}; {remedy}") from None
    response.close()
    return headers
