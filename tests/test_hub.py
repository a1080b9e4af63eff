"""Models of the hub, downloaded from a stand-in on this machine that notes every request.

numbert runs in a process of its own here, in which huggingface_hub, which reads its environment variables when it is
imported, is imported anew for each model.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from checkpoints import GOLDENS, copy_checkpoint, edit_json, edit_tensors
from numbert import CrossEncoder

NARROW = "cross-encoder/narrow"
SHARDED = "someone/sharded"
MODULAR = "someone/modular"
MAIN, OLDER = "1" * 40, "2" * 40  # commits
TOKEN = "hf_open_sesame"
WANTED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
UNWANTED = ["README.md", "golden.json", "modeling.py", "pytorch_model.bin", "onnx/model.onnx", "onnx/config.json"]
WANTED_OF_MODULES = {
    *WANTED, "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json",
    "2_Dense/config.json", "2_Dense/model.safetensors", "3_LayerNorm/config.json", "3_LayerNorm/model.safetensors",
    "4_Dense/config.json", "4_Dense/model.safetensors",
}  # fmt: skip
PAIR = ("which bridge is older", "the stone bridge")

# For each line, loads a model and prints the score of a pair and where the model is, or the error.
LOAD = """
import json, os, sys, time
from numbert import CrossEncoder, NumbertError
pause = time.sleep
time.sleep = lambda seconds: pause(min(seconds, 0.05))  # the client waits for a second before each new attempt
for line in sys.stdin:
    folder, environment, name, options, pair = json.loads(line)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for module in [module for module in sys.modules if module.partition(".")[0] == "huggingface_hub"]:
        del sys.modules[module]
    try:
        model = CrossEncoder(name, backend="reference", **options)
        result = {"score": float(model.predict(pair)), "folder": str(model.model_path)}
    except NumbertError as error:
        result = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(result), flush=True)
"""


class Request(NamedTuple):
    """What the hub was asked."""

    method: str
    path: str
    authorization: str | None


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories: {"owner/name": {revision: (commit, folder)}}."""

    def __init__(self, repositories):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = repositories
        self.requests = []
        self.needs_token = False
        self.broken = None  # the name of a file that is sent by half

    def sent_files(self):
        """Name the files whose content was asked for."""
        asked = [request.path for request in self.requests if request.method == "GET" and "/resolve/" in request.path]
        return {path.split("/", 5)[5] for path in asked}


class Handler(BaseHTTPRequestHandler):
    """Answers like the hub, as far as a download needs it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Say nothing on stderr."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, authorization = self.path.partition("?")[0], self.headers["Authorization"]
        self.server.requests.append(Request(self.command, path, authorization))
        if self.server.needs_token and authorization != f"Bearer {TOKEN}":
            self.fail(401, "GatedRepo")
            return
        owner, name, *rest = path.removeprefix("/api/models").strip("/").split("/")
        revisions = self.server.repositories.get(f"{owner}/{name}")
        if revisions is None:
            self.fail(404, "RepoNotFound")
            return
        action, revision, *parts = rest or ("revision", "main")
        known = {**revisions, **{commit: (commit, folder) for commit, folder in revisions.values()}}
        if revision not in known:
            self.fail(404, "RevisionNotFound")
        else:
            getattr(self, action)(f"{owner}/{name}", *known[revision], "/".join(parts))

    def revision(self, model_id, commit, folder, _):
        self.send_json({"id": model_id, "sha": commit, "siblings": [{"rfilename": name} for name in names(folder)]})

    def tree(self, model_id, commit, folder, _):
        sizes = [(name, (folder / name).stat().st_size) for name in names(folder)]
        self.send_json([{"type": "file", "path": name, "size": size, "oid": blob_id(name)} for name, size in sizes])

    def resolve(self, model_id, commit, folder, name):
        if name not in names(folder):
            self.fail(404, "EntryNotFound")
            return
        content = (folder / name).read_bytes()
        self.send(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit})

    def fail(self, status, code):
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def send_json(self, content):
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(self, status, content, headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.broken and self.path.endswith(self.server.broken):
            content, self.close_connection = content[: len(content) // 2], True
        self.wfile.write(content)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def blob_id(name):
    return hashlib.sha1(name.encode()).hexdigest()


@pytest.fixture(scope="session")
def repositories(tmp_path_factory):
    """Models: in two revisions and with files that nobody should ask for; in shards; pickled; of modules."""
    root = tmp_path_factory.mktemp("repositories")
    newest, older = copy_checkpoint("narrow", root / "newest"), copy_checkpoint("narrow", root / "older")
    edit_tensors(older / "model.safetensors", lambda tensors: tensors["classifier.bias"].__iadd__(1))
    for name in UNWANTED:
        (newest / name).parent.mkdir(exist_ok=True)
        (newest / name).write_bytes(b"not for numbert")
    pickled = copy_checkpoint("narrow", root / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    modular, half_pickled = copy_checkpoint("modular", root), copy_checkpoint("modular", root / "half")
    for name in (*UNWANTED, "2_Dense/pytorch_model.bin", "2_Dense/README.md", "5_Dense.py"):
        (modular / name).parent.mkdir(exist_ok=True)
        (modular / name).write_bytes(b"not for numbert")
    (half_pickled / "2_Dense" / "model.safetensors").rename(half_pickled / "2_Dense" / "pytorch_model.bin")
    return {
        MODULAR: {"main": (MAIN, modular)},
        "someone/half-pickled": {"main": (MAIN, half_pickled)},
        NARROW: {"main": (MAIN, newest), "v0": (OLDER, older)},
        SHARDED: {"main": (MAIN, GOLDENS / "sharded-bfloat16")},
        "someone/pickled": {"main": (MAIN, pickled)},
    }


@pytest.fixture
def hub(repositories):
    server = Hub(repositories)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds until it sees that it shall end
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def process():
    """The process that loads the models."""
    with subprocess.Popen(
        [sys.executable, "-c", LOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


@pytest.fixture
def load(hub, process, tmp_path):
    """Load a model in a process whose hub is the stand-in, with a cache of its own, and return what it prints."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "HUGGING", "SENTENCE_TRANSFORMERS", "TRANSFORMERS"))
        and not key.lower().endswith("_proxy")
    }
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def run(name, environment=(), **options):
        hub.requests.clear()
        alarm = threading.Timer(120, process.kill)
        alarm.start()
        request = [str(tmp_path), {**inherited, **settings, **dict(environment)}, name, options, PAIR]
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        alarm.cancel()
        assert answer, "the process has ended; its stderr says why"
        return json.loads(answer)

    return run


def local_score(folder):
    return float(CrossEncoder(folder, backend="reference").predict(PAIR))


def test_only_the_needed_files_are_downloaded(hub, load):
    assert load(NARROW)["score"] == local_score(GOLDENS / "narrow")
    assert hub.sent_files() == WANTED


def test_a_model_in_the_cache_is_loaded_without_any_request(hub, load):
    first = load(NARROW)
    assert hub.requests
    assert load(NARROW) == first
    assert not hub.requests


def forget_what_is_absent(cache) -> list[Path]:
    """Leave the cache as a program does that asked for what it needed itself."""
    marks = [path for place in Path(cache).rglob(".no_exist") for path in place.rglob("*") if path.is_file()]
    for mark in [*marks, *Path(cache).rglob("trees/*.json")]:  # the latter are listings that newer clients keep
        mark.unlink()
    return marks


def test_what_another_program_put_into_the_cache_is_completed(hub, load, repositories, tmp_path):
    expected = load(NARROW, cache_folder=str(tmp_path))
    assert forget_what_is_absent(tmp_path)
    (repositories[NARROW]["main"][1] / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    try:
        hub.requests.clear()
        result = load(NARROW, cache_folder=str(tmp_path))
        assert "expected a Transformer alone" in result["message"]
    finally:
        (repositories[NARROW]["main"][1] / "modules.json").unlink()
    assert expected["score"]


def test_without_a_connection_what_another_program_put_there_is_used_with_a_warning(hub, load, tmp_path):
    expected = load(NARROW, cache_folder=str(tmp_path))
    forget_what_is_absent(tmp_path)
    hub.requests.clear()
    assert load(NARROW, cache_folder=str(tmp_path), local_files_only=True) == expected
    assert not hub.requests


def test_a_bare_name_is_one_of_the_organization_cross_encoder(hub, load):
    assert load("narrow")["score"] == load(NARROW)["score"]
    load("unknown")
    assert {"/api/models/cross-encoder/unknown/revision/main"} == {request.path for request in hub.requests}


@pytest.mark.parametrize("revision", ["v0", OLDER])
def test_the_revision_that_is_asked_for_is_loaded(repositories, load, revision):
    score = load(NARROW, revision=revision)["score"]
    assert score == local_score(repositories[NARROW]["v0"][1])
    assert score != load(NARROW)["score"]  # of main, though the cache holds the older one


def test_an_unknown_revision_is_not_found(load):
    result = load(NARROW, revision="v9")
    assert result["error"] == "ModelNotFoundError"
    assert f"{NARROW} (revision v9): the hub refused" in result["message"]


def test_an_unknown_model_is_not_found(load):
    result = load("someone/unknown")
    assert result["error"] == "ModelNotFoundError"
    assert "someone/unknown (revision main): the hub refused" in result["message"]


def test_a_model_of_pickled_weights_only_is_refused_and_they_are_not_fetched(hub, load):
    result = load("someone/pickled")
    assert result["error"] == "ModelNotFoundError"
    assert "the repository holds no model.safetensors or model.safetensors.index.json" in result["message"]
    assert "pytorch_model.bin" not in hub.sent_files()


@pytest.mark.parametrize(
    ("environment", "options", "named"),
    [({}, {"local_files_only": True}, "local_files_only"), ({"HF_HUB_OFFLINE": "1"}, {}, "HF_HUB_OFFLINE")],
)
def test_offline_only_the_cache_is_used(hub, load, environment, options, named):
    result = load(NARROW, environment, **options)
    assert result["error"] == "ModelNotFoundError"
    assert NARROW in result["message"]
    assert named in result["message"]
    assert not hub.requests
    online = load(NARROW)
    assert load(NARROW, environment, **options) == online
    assert not hub.requests


def test_without_a_connection_the_model_is_not_found(load):
    result = load(NARROW, {"HF_ENDPOINT": "http://127.0.0.1:9"})  # a port where nothing listens
    assert result["error"] == "ModelNotFoundError"
    assert f"{NARROW} (revision main): cannot be downloaded" in result["message"]


def test_cache_folder_is_where_the_model_is_put(load, tmp_path):
    assert_below(load(NARROW, cache_folder=str(tmp_path / "mine")), tmp_path / "mine")


def test_the_variable_of_sentence_transformers_is_the_default_cache_folder(load, tmp_path):
    environment = {"SENTENCE_TRANSFORMERS_HOME": str(tmp_path / "theirs")}
    assert_below(load(NARROW, environment), tmp_path / "theirs")
    assert_below(load(NARROW, environment, cache_folder=str(tmp_path / "mine")), tmp_path / "mine")


def test_else_the_model_is_put_into_the_cache_of_the_hub(load, tmp_path):
    assert_below(load(NARROW), tmp_path / "home" / "hub")


def assert_below(result, folder):
    assert Path(result["folder"]).is_relative_to(folder)


def test_the_token_is_sent_with_every_request(hub, load):
    hub.needs_token = True
    assert load(NARROW, token=TOKEN)["score"] == local_score(GOLDENS / "narrow")
    assert {request.authorization for request in hub.requests} == {f"Bearer {TOKEN}"}


def test_the_token_of_the_environment_is_used(hub, load):
    hub.needs_token = True
    assert "score" in load(NARROW, {"HF_TOKEN": TOKEN})


def test_without_the_token_a_gated_model_is_not_found(hub, load):
    hub.needs_token = True
    result = load(NARROW)
    assert result["error"] == "ModelNotFoundError"
    assert "HF_TOKEN" in result["message"]


def test_shards_are_downloaded_and_a_missing_one_again(hub, load):
    first = load(SHARDED)
    assert first["score"] == local_score(GOLDENS / "sharded-bfloat16")
    shard = Path(first["folder"]) / "model-00003-of-00005.safetensors"
    shard.resolve().unlink()
    shard.unlink(missing_ok=True)
    assert load(SHARDED) == first
    assert hub.sent_files() == {shard.name}


def test_a_download_that_breaks_off_is_an_error_and_is_completed_later(hub, load):
    hub.broken = "/model.safetensors"
    result = load(NARROW)
    assert result["error"] == "ModelNotFoundError"
    assert f"{NARROW} (revision main): cannot be downloaded" in result["message"]
    hub.broken = None
    assert load(NARROW)["score"] == local_score(GOLDENS / "narrow")


def test_the_files_of_modules_are_downloaded(hub, load):
    first = load(MODULAR)
    assert first["score"] == local_score(GOLDENS / "modular")
    assert hub.sent_files() == WANTED_OF_MODULES
    assert load(MODULAR) == first
    assert not hub.requests


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "4_Dense/model.safetensors"])
def test_a_file_of_a_module_that_is_missing_in_the_cache_is_downloaded(hub, load, name):
    first = load(MODULAR)
    path = Path(first["folder"]) / name
    path.resolve().unlink()
    path.unlink(missing_ok=True)
    assert load(MODULAR) == first
    assert hub.sent_files() == {name}


def test_modules_in_folders_of_other_names_are_downloaded(hub, load, repositories, tmp_path):
    folder, changed = repositories[MODULAR]["main"][1], copy_checkpoint("modular", tmp_path)
    (changed / "1_Pooling").rename(changed / "pool")
    edit_json(changed / "modules.json", lambda modules: modules[1].update(path="pool"))
    repositories[MODULAR]["main"] = (MAIN, changed)
    try:
        assert load(MODULAR)["score"] == local_score(GOLDENS / "modular")
        assert {"pool/config.json"} <= hub.sent_files()
    finally:
        repositories[MODULAR]["main"] = (MAIN, folder)


def test_pickled_weights_of_a_module_are_not_fetched(hub, load):
    result = load("someone/half-pickled")
    assert result["error"] == "ModelNotFoundError"
    assert "the repository holds no 2_Dense/model.safetensors; numbert reads safetensors only" in result["message"]
    assert "2_Dense/pytorch_model.bin" not in hub.sent_files()


def test_settings_of_a_module_that_nobody_has_asked_for_are_asked_for(hub, load, repositories, tmp_path):
    folder = repositories[MODULAR]["main"][1]
    changed = copy_checkpoint("modular", tmp_path)
    for path in (changed / "3_LayerNorm").iterdir():
        path.unlink()
    kind = {"type": "sentence_transformers.models.Normalize", "path": "3_Normalize"}
    edit_json(changed / "modules.json", lambda modules: modules[3].update(kind))
    repositories[MODULAR]["main"] = (MAIN, changed)
    try:
        expected = load(MODULAR)
        assert load(MODULAR) == expected
        assert not hub.requests
        forgotten = forget_what_is_absent(tmp_path / "home")
        assert "3_Normalize" in [mark.parent.name for mark in forgotten]
        for mark in forgotten:
            if mark.parent.name != "3_Normalize":  # as by a program that reads all but that
                mark.touch()
        assert load(MODULAR) == expected
        assert hub.requests
    finally:
        repositories[MODULAR]["main"] = (MAIN, folder)
