"""The API's methods that are used here: where they are, what they answer with, and how long that may take."""

from __future__ import annotations

import dataclasses
import typing

from google.protobuf.message import Message

from gpipe import v1

Request = typing.TypeVar("Request", bound=Message)
Response = typing.TypeVar("Response", bound=Message)

QUICK = 10.0  # Seconds.
# Submitting and planning find shapes, and perhaps measure layers, on a worker.
SLOW = 120.0


@dataclasses.dataclass(frozen=True)
class Method(typing.Generic[Request, Response]):
    """One method. Streams have no deadline of their own."""

    name: str  # `JobService/GetJob`
    request: type[Request]
    response: type[Response]
    timeout: float = QUICK

    @property
    def path(self) -> str:
        return f"/gpipe.v1.{self.name}"


SUBMIT = Method("JobService/SubmitJob", v1.SubmitJobRequest, v1.Job, SLOW)
PLAN = Method("JobService/PlanJob", v1.PlanJobRequest, v1.PlanJobResponse, SLOW)
GET = Method("JobService/GetJob", v1.GetJobRequest, v1.Job)
LIST = Method("JobService/ListJobs", v1.ListJobsRequest, v1.ListJobsResponse)
WATCH = Method("JobService/WatchJob", v1.WatchJobRequest, v1.WatchJobResponse)
CANCEL = Method("JobService/CancelJob", v1.CancelJobRequest, v1.Job)
CHECKPOINT = Method("JobService/CheckpointJob", v1.CheckpointJobRequest, v1.CheckpointJobResponse)
PAUSE = Method("JobService/PauseJob", v1.PauseJobRequest, v1.Job)
RESUME = Method("JobService/ResumeJob", v1.ResumeJobRequest, v1.Job)
DELETE = Method("JobService/DeleteJob", v1.DeleteJobRequest, v1.DeleteJobResponse)
EVENTS = Method("JobService/ListJobEvents", v1.ListJobEventsRequest, v1.ListJobEventsResponse)
METRICS = Method("JobService/ListJobMetrics", v1.ListJobMetricsRequest, v1.ListJobMetricsResponse)

FIND_MISSING = Method("ArtifactService/FindMissingArtifacts", v1.FindMissingArtifactsRequest,
                      v1.FindMissingArtifactsResponse)
UPLOAD = Method("ArtifactService/UploadArtifact", v1.UploadArtifactRequest, v1.UploadArtifactResponse)
DOWNLOAD = Method("ArtifactService/DownloadArtifact", v1.DownloadArtifactRequest, v1.DownloadArtifactResponse)

WORKERS = Method("ClusterService/ListWorkers", v1.ListWorkersRequest, v1.ListWorkersResponse)
VERSION = Method("ClusterService/GetVersion", v1.GetVersionRequest, v1.GetVersionResponse)
DRAIN = Method("ClusterService/DrainWorker", v1.DrainWorkerRequest, v1.Worker)
UNDRAIN = Method("ClusterService/UndrainWorker", v1.UndrainWorkerRequest, v1.Worker)

ASK_ROUNDS = Method("RoundService/AskRounds", v1.AskRoundsRequest, v1.AskRoundsResponse)

WATCH_CLUSTER = Method("MonitoringService/WatchCluster", v1.WatchClusterRequest, v1.WatchClusterResponse)
TIMELINE = Method("MonitoringService/GetTimeline", v1.GetTimelineRequest, v1.StepTimeline)
