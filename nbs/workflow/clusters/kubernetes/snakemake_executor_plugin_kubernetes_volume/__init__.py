"""Snakemake's Kubernetes executor for pods that share a volume.

The plugin of that name takes for granted that pods share no files: each file that a rule declares
travels through an object store. Here every stage works in a folder of its own with more in it than
the rule declares, such as checkpoints, so the output folder lies on a volume that all pods mount,
and nothing travels. All else is the plugin's own.
"""

import shlex
from dataclasses import replace
from pathlib import Path

from snakemake_executor_plugin_kubernetes import Executor as KubernetesExecutor
from snakemake_executor_plugin_kubernetes import ExecutorSettings, common_settings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]
common_settings = replace(
    common_settings,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    auto_deploy_default_storage_provider=False,
)


class Executor(KubernetesExecutor):
    "One pod a job, which starts in the output folder"

    def get_job_exec_prefix(self, job):
        return f"cd {shlex.quote(str(Path.cwd()))}"
