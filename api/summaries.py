"""The `summary` of each operation in the OpenAPI document, by operation id."""

from collections.abc import Mapping
from typing import Any, Final

SUMMARIES: Final[Mapping[str, str]] = {
    "submit_job": "Submit a job",
    "list_jobs": "List jobs",
    "get_job": "Get a job",
    "edit_job": "Edit a job",
    "delete_job": "Delete a job",
    "cancel_job": "Cancel a job",
    "pause_job": "Pause a job",
    "resume_job": "Resume a job",
    "retry_job": "Retry a job",
    "fork_job": "Fork a job",
    "list_events": "List or stream the events of a job",
    "get_metrics": "Get metrics of a job",
    "get_metric_names": "List the metric series of a job",
    "compare_jobs": "Compare metrics of several jobs",
    "plot_job": "Plot metrics of a job",
    "plot_jobs": "Plot metrics of several jobs",
    "list_checkpoints": "List the checkpoints of a job",
    "get_checkpoint": "Get a checkpoint",
    "pin_checkpoint": "Pin a checkpoint",
    "unpin_checkpoint": "Unpin a checkpoint",
    "get_checkpoint_content": "Download the weights of a checkpoint",
    "submit_analysis": "Submit an analysis",
    "list_analyses": "List analyses",
    "get_analysis": "Get an analysis",
    "delete_analysis": "Delete an analysis",
    "cancel_analysis": "Cancel an analysis",
    "pause_analysis": "Pause an analysis",
    "resume_analysis": "Resume an analysis",
    "list_analysis_events": "List or stream the events of an analysis",
    "get_analysis_content": "Download the arrays of an analysis",
    "get_analysis_picture": "Download a picture of an analysis",
    "create_dataset": "Create a dataset",
    "list_datasets": "List datasets",
    "get_dataset": "Get a dataset",
    "delete_dataset": "Delete a dataset",
    "get_dataset_rows": "Get the first rows of a dataset",
    "list_dataset_events": "List or stream the events of a preparation",
    "correct_dataset": "Correct what was guessed of a dataset",
    "prepare_dataset": "Prepare a dataset again",
    "cancel_dataset": "Cancel a preparation",
    "put_dataset_content": "Upload a dataset in one request",
    "append_dataset_content": "Append to an upload",
    "create_upload_links": "Create links to upload parts",
    "complete_upload_links": "Submit the parts that were put",
    "get_upload": "Get the offset of an upload",
    "get_upload_capabilities": "Get the upload capabilities",
    "catalog": "List all components",
    "catalog_kind": "List the components of one kind",
    "preview_schedule": "Preview a learning-rate schedule",
    "list_keys": "List API keys",
    "create_key": "Create an API key",
    "get_key": "Get an API key",
    "revoke_key": "Revoke an API key",
    "list_workers": "List workers and their slots",
    "get_queue": "Get the queue",
    "get_telemetry": "Get Prometheus metrics of the service",
    "health": "Check that the process runs",
    "readiness": "Check that the service is ready",
    "list_projects": "List projects",
    "create_project": "Create a project",
}


def add_summaries(document: dict[str, Any]) -> None:
    """Replace the summaries that FastAPI derives from function names; an operation without an entry keeps its own."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["summary"] = SUMMARIES.get(operation["operationId"], operation["summary"])
