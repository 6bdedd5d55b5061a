"""What of DVC's insides this adapter relies on, as data, compared with the installed DVC before anything is wrapped."""

from __future__ import annotations

import inspect
from importlib import import_module

from mlseal_dvc import SUPPORTED

# (module, attribute, parameters that must exist): things are wrapped by name, so a rename or a lost parameter counts.
RELIED_ON: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("dvc.repo", "Repo.push", ("targets", "remote", "recursive", "revs", "workspace", "glob", "run_cache")),
    (
        "dvc.repo",
        "Repo.fetch",
        ("targets", "remote", "recursive", "revs", "workspace", "run_cache", "max_size", "types"),
    ),
    ("dvc.repo", "Repo.checkout", ("targets", "with_deps", "recursive", "relink")),
    ("dvc.repo", "Repo.site_cache_dir", ()),
    ("dvc.repo", "Repo.experiments", ()),
    ("dvc.repo", "Repo.get", ("url", "path", "out", "rev")),
    ("dvc.repo", "Repo.brancher", ()),
    ("dvc.repo", "Repo.drop_data_index", ()),
    ("dvc.repo", "lock_repo", ("repo",)),
    ("dvc.repo.index", "index_from_targets", ("targets", "stage_filter", "outs_filter", "with_deps", "recursive")),
    ("dvc.repo.index", "Index.data", ()),
    ("dvc.config", "Config.load_file", ("path", "fs")),
    ("dvc.config", "get_compiled_schema.memory", ()),
    ("dvc.config_schema", "ByUrl", ("mapping",)),
    ("dvc.config_schema", "REMOTE_SCHEMAS", ()),
    ("dvc.config_schema", "SCHEMA", ()),
    ("dvc.data_cloud", "DataCloud.get_remote", ("name",)),
    ("dvc.data_cloud", "DataCloud._pull", ("objs",)),
    ("dvc.data_cloud", "Remote.odb", ()),
    ("dvc.data_cloud", "Remote.legacy_odb", ()),
    ("dvc.output", "Output._build", ()),
    ("dvc.output", "Output.checkout", ()),
    ("dvc.output", "Output.transfer", ("source", "odb", "jobs", "update", "no_progress_bar")),
    ("dvc.dependency.repo", "RepoDependency.download", ("to", "jobs")),
    ("dvc.dependency.repo", "RepoDependency._make_fs", ("rev", "locked")),
    ("dvc.dependency.repo", "RepoDependency._get_rev", ("locked",)),
    ("dvc_data.hashfile.transfer", "transfer", ("src", "dest", "obj_ids", "hardlink", "shallow", "callback")),
    ("dvc.output", "Output.get_obj", ()),
    ("dvc.output", "Output.index_key", ()),
    ("dvc.output", "Output.is_in_repo", ()),
    ("dvc.output", "Output.changed_checksum", ()),
    ("dvc.stage", "Stage.is_repo_import", ()),
    ("dvc.stage", "Stage.is_import", ()),
    ("dvc.stage", "Stage.run", ("dry",)),
    ("dvc.repo", "Repo.commit", ("target",)),
    ("dvc.stage.cache", "StageCache.restore", ("stage",)),
    ("dvc.stage.cache", "StageCache._load", ("stage",)),
    ("dvc.stage.cache", "StageCache._create_stage", ("cache",)),
    ("dvc.stage.cache", "RunCacheNotFoundError", ("stage",)),
    ("dvc.stage.cache", "StageCache.push", ("remote",)),
    ("dvc.stage.cache", "StageCache.pull", ("remote",)),
    ("dvc.stage.cache", "RunCacheNotSupported", ()),
    ("dvc.fs.dvc", "_DVCFileSystem._make_repo", ("kwargs",)),
    ("dvc.repo.worktree", "update_worktree_stages", ("repo", "stage_infos")),
    ("dvc.fs.dvc", "_DVCFileSystem._get_key_from_relative", ("path",)),
    ("dvc.fs.dvc", "_DVCFileSystem._get_subrepo_info", ("key",)),
    ("dvc_objects.fs", "known_implementations", ()),
    ("dvc_data.hashfile.db", "HashFileDB.add", ("path", "fs", "oid")),
    ("dvc_data.index.push", "apply", ("diff", "path", "fs", "storage")),
    ("dvc_data.hashfile.tree", "Tree.load", ("odb", "hash_info")),
    ("dvc_data.hashfile.tree", "Tree.as_bytes", ()),
    ("dvc_data.fs", "DataFileSystem.get_file", ("rpath", "lpath", "info")),
    ("dvc_data.fs", "DataFileSystem._open", ("path",)),
    ("dvc_data.fs", "DataFileSystem._get_key", ("path",)),
    ("dvc_data.fs", "DataFileSystem._get_fs_path", ("path", "info")),
)


def broken() -> str | None:
    """The first way in which the installed DVC differs from what is relied on; None if it does not."""
    from dvc import __version__, version_tuple

    first, end = SUPPORTED
    found = tuple(part for part in version_tuple[:3] if isinstance(part, int))
    if not first <= found < end:
        return f"dvc {__version__}"
    for module, path, parameters in RELIED_ON:
        try:
            owner = import_module(module)
            target = inspect.getattr_static(owner, path.split(".")[0])
            for name in path.split(".")[1:]:
                target = inspect.getattr_static(target, name)
        except (ImportError, AttributeError):
            return f"dvc {__version__} without {module}.{path}"
        missing = set(parameters) - _parameters(target)
        if missing:
            return f"dvc {__version__}, {module}.{path} without {', '.join(sorted(missing))}"
    return None


def supported() -> str:
    """The supported versions, for messages."""
    first, end = (".".join(map(str, version)) for version in SUPPORTED)
    return f"dvc >={first},<{end} with the parts listed in docs/dvc.md"


def _parameters(target: object) -> set[str]:
    function = getattr(target, "__func__", target)
    return set(inspect.signature(function).parameters) if callable(function) else set()
