"""The table of MLflow's REST endpoints, and `classify`, which finds a request's row in it.

It decides what a request is and where such a request goes. It never looks at a body, a header or the clock,
and it sends nothing. The proxy calls it once per request, `placement` reads its `goes`, the dialects read its
`ids`.

     method, raw path ──▶ static: one look into a dictionary ──▶ Match(route, params)
                   │ miss     ▲
                   │          │ decoded, when it holds a %
                   ├──────────┘
                   └────────▶ templates of that method and number of segments ──▶ Match
                                                                           └────▶ None: unknown

*Placement.* A section of the table says where its writes go; a row says what it does. A write that changes
what the sides must agree on is `MIRROR`. A write that belongs to tracking, but which this release sends to
the primary alone, is `UNMIRRORED`: it is counted as a loss, never silent (P7). Files are `FILES`: the proxy
has a road of its own for them, reads included, because it has to see the bytes and the roots they lie below.
Reads, the UI and what administers one server are `PRIMARY`. The model registry is one backend, so there even
reads are `REGISTRY` (P6): the two sides number versions on their own. `LOCAL` is answered here: a client
decides once, in three seconds, from `/version` whether it traces.

*Kind is by effect, not by method.* A POST that only searches is a read; mirroring it would cost and prove
nothing.

*`/ajax-api` equals `/api`.* The server registers the same handler under both; the UI uses the second for its
renames, tags and deletes, and these are writes like any other. `classify` therefore knows every row under
both prefixes. `ajax` says which of them a server really has: a guess at the other one gets the server's own
404, whatever we call it.

*`<v>` belongs to the route.* A client does not choose between 2.0 and 3.0: `traces` exists under both and
means two things, so the version is a part of the path like any other.

*As the server sees it.* MLflow decodes the whole path and then routes, so `runs%2Fcreate` creates a run. A
path that is no static row as received and holds a `%` is therefore decoded once, in full, and looked up
again; else one encoded letter would slip a registry write past the registry. Nothing else is normalised:
another case, a trailing slash or a double slash is unknown, except inside a `{x:path}`, where the server
takes them too.

*Unknown goes to the primary alone, and is counted.* A new server, or Databricks, has endpoints that this
table has not: to refuse them would break clients, to mirror them would replay writes whose ids nobody
translates.

*First row wins*, in the order of the table, where two templates fit; templates with a `{x:path}` come after
all others. So does the server.

To extend it: add one line to the section of its group (operation, methods, kind, path, ids), in a new section
if it goes elsewhere. `tests/acceptance/test_routes_complete.py` names what an installed mlflow has and this
table lacks. A row of `MIRROR` also needs a case in each dialect.

The table lost against: decorators on handlers (nobody could read the whole), a prefix heuristic
(`traces/search` is a read and `traces/{id}` is not), a data file (the type checker and the reviewer would
both look away).

Source: mlflow 3.17.2, its URL map and its routers read from the running server; kinds and ids measured by
HTTP or read in its source. Group `auth` and `/metrics` are from source only: both are optional there.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote


class Group(StrEnum):
    """What an endpoint is about; one heading of the table each."""

    EXPERIMENTS = "experiments"
    RUNS = "runs"
    METRICS = "metrics"
    INPUTS_OUTPUTS = "inputs/outputs"
    LOGGED_MODELS = "logged-models"
    TRACES = "traces"
    ASSESSMENTS = "assessments"
    DATASETS = "datasets"
    SCORERS = "scorers"
    ISSUES = "issues"
    LABEL_SCHEMAS = "label-schemas"
    REVIEW_QUEUES = "review-queues"
    ARTIFACTS = "artifacts"
    REGISTERED_MODELS = "registry:registered-models"
    MODEL_VERSIONS = "registry:model-versions"
    ALIASES = "registry:aliases"
    WEBHOOKS = "registry:webhooks"
    GATEWAY = "gateway"
    MCP_SERVERS = "mcp-servers"
    PROMPT_OPTIMIZATION = "prompt-optimization"
    JOBS = "jobs"
    WORKSPACES = "workspaces"
    ASSISTANT = "assistant"
    MISC = "misc"
    AUTH = "auth"
    UI = "ui"


class Kind(StrEnum):
    """What a request does to the server, whatever its method says."""

    READ = "read"
    WRITE = "write"
    HEALTH = "health"
    UI = "ui"


class Goes(StrEnum):
    """Which backends a request belongs to."""

    MIRROR = "mirror"  # tracking write: primary, then every secondary
    UNMIRRORED = "unmirrored"  # tracking write sent to the primary alone by this release; counted as a loss
    FILES = "files"  # artifacts: streamed to the primary and kept for the secondaries (proxy/artifacts.py)
    PRIMARY = "primary"  # reads, UI, server administration
    REGISTRY = "registry"  # model registry: exactly one backend
    LOCAL = "local"  # the proxy answers by itself


class Ajax(StrEnum):
    """Under which prefixes a server has the route."""

    BOTH = "both"  # /api and /ajax-api
    AJAX = "ajax"  # /ajax-api alone: made for the UI
    API = "api"  # /api alone
    BARE = "bare"  # neither: the path is the whole path


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row: the methods that share an operation, a path and a kind.

    `operation` is unique and serves as a metrics label. `path` starts with a slash only if it is the whole
    path; otherwise it follows a prefix. `ids` are short names of the fields, path parameters and headers of the
    request in which ids may hide, nested ones by their last parts; what path and body repeat stands once.
    """

    operation: str
    methods: tuple[str, ...]
    path: str
    group: Group
    kind: Kind
    goes: Goes
    ids: tuple[str, ...]
    ajax: Ajax


@dataclass(frozen=True, slots=True)
class Match:
    """A request's row, with its path parameters, percent-decoded."""

    route: Route
    params: Mapping[str, str]


MIRROR, UNMIRRORED, FILES, PRIMARY, REGISTRY, LOCAL = Goes
BOTH, AJAX, API, BARE = Ajax


def _rows(group: Group, goes: Goes, ajax: Ajax, root: str, table: str) -> Iterator[Route]:
    """Read one section: `goes` is where its writes go, and where all of it goes if that is one place only."""
    for line in table.strip().splitlines():
        operation, methods, kind, path, *ids = line.split()
        one_place = goes in (REGISTRY, LOCAL, FILES)
        yield Route(
            operation=operation,
            methods=tuple(methods.split(",")),
            path=root + path,
            group=group,
            kind=Kind(kind),
            goes=goes if one_place or kind == Kind.WRITE else PRIMARY,
            ids=tuple(ids),
            ajax=ajax,
        )


# fmt: off
ROUTES: Final[tuple[Route, ...]] = (
    # operation  methods  kind  path below the section's root  where ids hide

    # --- experiments ---
    # The proto spells this path without its slash; every server answers 404. The UI uses the one after it.
    *_rows(Group.EXPERIMENTS, MIRROR, BOTH, "", """
    searchDatasets  POST  read  2.0mlflow/experiments/search-datasets  experiment_ids[]
    """),
    *_rows(Group.EXPERIMENTS, MIRROR, BOTH, "2.0/mlflow/", """
    createExperiment     POST      write  experiments/create                 artifact_location tags[]
    deleteExperiment     POST      write  experiments/delete                 experiment_id
    deleteExperimentTag  POST      write  experiments/delete-experiment-tag  experiment_id
    getExperiment        GET       read   experiments/get                    experiment_id
    getExperimentByName  GET       read   experiments/get-by-name
    restoreExperiment    POST      write  experiments/restore                experiment_id
    searchExperiments    GET,POST  read   experiments/search                 filter
    setExperimentTag     POST      write  experiments/set-experiment-tag     experiment_id
    updateExperiment     POST      write  experiments/update                 experiment_id
    """),
    *_rows(Group.EXPERIMENTS, MIRROR, AJAX, "2.0/mlflow/", """
    searchExperimentDatasets  POST  read  experiments/search-datasets  experiment_ids[]
    """),

    # --- runs ---
    *_rows(Group.RUNS, MIRROR, BOTH, "2.0/mlflow/", """
    createRun   POST  write  runs/create         experiment_id tags[]
    deleteRun   POST  write  runs/delete         run_id
    deleteTag   POST  write  runs/delete-tag     run_id
    getRun      GET   read   runs/get            run_id run_uuid
    logParam    POST  write  runs/log-parameter  run_id run_uuid
    restoreRun  POST  write  runs/restore        run_id
    searchRuns  POST  read   runs/search         experiment_ids[] filter
    setTag      POST  write  runs/set-tag        run_id run_uuid
    updateRun   POST  write  runs/update         run_id run_uuid
    """),
    *_rows(Group.RUNS, UNMIRRORED, AJAX, "2.0/mlflow/", """
    createPromptlabRun  POST  write  runs/create-promptlab-run  experiment_id tags[]
    """),

    # --- metrics ---
    *_rows(Group.METRICS, MIRROR, BOTH, "2.0/mlflow/", """
    getMetricHistory              GET   read   metrics/get-history                run_id run_uuid
    getMetricHistoryBulkInterval  GET   read   metrics/get-history-bulk-interval  run_ids[]
    logBatch                      POST  write  runs/log-batch                     run_id metrics[].model_id metrics[].run_id tags[]
    logMetric                     POST  write  runs/log-metric                    run_id run_uuid model_id
    """),  # noqa: E501  the columns stay aligned
    *_rows(Group.METRICS, MIRROR, AJAX, "2.0/mlflow/", """
    getMetricHistoryBulk  GET  read  metrics/get-history-bulk  run_id[]
    """),

    # --- inputs/outputs ---
    *_rows(Group.INPUTS_OUTPUTS, MIRROR, BOTH, "2.0/mlflow/", """
    logInputs   POST  write  runs/log-inputs  run_id datasets[].source models[].model_id
    logOutputs  POST  write  runs/outputs     run_id models[].model_id
    """),

    # --- logged-models ---
    # Of finalize only the body's model_id counts; the server ignores the one in the path.
    *_rows(Group.LOGGED_MODELS, MIRROR, BOTH, "2.0/mlflow/", """
    createLoggedModel         POST    write  logged-models                                   experiment_id source_run_id tags[]
    searchLoggedModels        POST    read   logged-models/search                            experiment_ids[] filter page_token
    getLoggedModel            GET     read   logged-models/{model_id}                        model_id
    finalizeLoggedModel       PATCH   write  logged-models/{model_id}                        model_id
    deleteLoggedModel         DELETE  write  logged-models/{model_id}                        model_id
    listLoggedModelArtifacts  GET     read   logged-models/{model_id}/artifacts/directories  model_id
    logLoggedModelParams      POST    write  logged-models/{model_id}/params                 model_id
    setLoggedModelTags        PATCH   write  logged-models/{model_id}/tags                   model_id tags[]
    deleteLoggedModelTag      DELETE  write  logged-models/{model_id}/tags/{tag_key}         model_id
    logModel                  POST    write  runs/log-model                                  run_id model_json
    """),  # noqa: E501  the columns stay aligned
    *_rows(Group.LOGGED_MODELS, MIRROR, AJAX, "2.0/mlflow/", """
    getLoggedModelArtifact  GET  read  logged-models/{model_id}/artifacts/files  model_id
    """),

    # --- traces ---
    # get-online-trace-details and unified-traces are registered, but every server answers 404.
    *_rows(Group.TRACES, UNMIRRORED, BOTH, "2.0/mlflow/", """
    getOnlineTraceDetails      GET     read   get-online-trace-details  trace_id
    startTrace                 POST    write  traces                    experiment_id request_metadata[] tags[]
    searchTraces               GET     read   traces                    experiment_ids[] filter
    deleteTraces               POST    write  traces/delete-traces      experiment_id request_ids[]
    linkPromptsToTrace         POST    write  traces/link-prompts       trace_id
    linkTracesToRun            POST    write  traces/link-to-run        trace_ids[] run_id
    endTrace                   PATCH   write  traces/{request_id}       request_id request_metadata[] tags[]
    getTraceInfo               GET     read   traces/{request_id}/info  request_id
    setTraceTag                PATCH   write  traces/{request_id}/tags  request_id
    deleteTraceTag             DELETE  write  traces/{request_id}/tags  request_id
    searchUnifiedTraceHandler  GET     read   unified-traces            model_id experiment_ids[] filter
    """),
    *_rows(Group.TRACES, UNMIRRORED, BOTH, "3.0/mlflow/", """
    startTraceV3                     POST    write  traces                               trace_id experiment_id trace_metadata tags assessments[] spans[]
    batchGetTraces                   GET     read   traces/batchGet                      trace_ids[] experiment_ids[]
    batchGetTraceInfos               POST    read   traces/batchGetInfos                 trace_ids[] experiment_ids[]
    calculateTraceFilterCorrelation  POST    read   traces/calculate-filter-correlation  experiment_ids[] filter_string1 filter_string2 base_filter
    deleteTracesV3                   POST    write  traces/delete-traces                 experiment_id request_ids[]
    getTrace                         GET     read   traces/get                           trace_id
    queryTraceMetrics                POST    read   traces/metrics                       experiment_ids[] filters[]
    searchTracesV3                   POST    read   traces/search                        locations[] filter
    getTraceInfoV3                   GET     read   traces/{trace_id}                    trace_id
    setTraceTagV3                    PATCH   write  traces/{trace_id}/tags               trace_id
    deleteTraceTagV3                 DELETE  write  traces/{trace_id}/tags               trace_id
    """),  # noqa: E501  the columns stay aligned
    *_rows(Group.TRACES, UNMIRRORED, AJAX, "2.0/mlflow/", """
    getTraceArtifact  GET  read  get-trace-artifact  request_id
    """),
    *_rows(Group.TRACES, UNMIRRORED, AJAX, "3.0/mlflow/", """
    getTraceArtifactV3  GET  read  get-trace-artifact  request_id
    """),
    *_rows(Group.TRACES, UNMIRRORED, BARE, "", """
    otlpSpans  POST  write  /v1/traces  x-mlflow-experiment-id x-mlflow-run-id spans[]
    """),

    # --- assessments ---
    *_rows(Group.ASSESSMENTS, UNMIRRORED, BOTH, "3.0/mlflow/", """
    createAssessment  POST    write  traces/{trace_id}/assessments                  trace_id assessment_id metadata overrides
    getAssessment     GET     read   traces/{trace_id}/assessments/{assessment_id}  trace_id assessment_id
    updateAssessment  PATCH   write  traces/{trace_id}/assessments/{assessment_id}  trace_id assessment_id metadata overrides
    deleteAssessment  DELETE  write  traces/{trace_id}/assessments/{assessment_id}  trace_id assessment_id
    """),  # noqa: E501  the columns stay aligned

    # --- datasets ---
    *_rows(Group.DATASETS, UNMIRRORED, BOTH, "3.0/mlflow/", """
    createDataset                 POST      write  datasets/create                           experiment_ids[]
    searchEvaluationDatasets      GET,POST  read   datasets/search                           experiment_ids[] filter_string
    getDataset                    GET       read   datasets/{dataset_id}                     dataset_id
    deleteDataset                 DELETE    write  datasets/{dataset_id}                     dataset_id
    addDatasetToExperiments       POST      write  datasets/{dataset_id}/add-experiments     dataset_id experiment_ids[]
    getDatasetExperimentIds       GET       read   datasets/{dataset_id}/experiment-ids      dataset_id
    upsertDatasetRecords          POST      write  datasets/{dataset_id}/records             dataset_id records
    getDatasetRecords             GET       read   datasets/{dataset_id}/records             dataset_id
    deleteDatasetRecords          DELETE    write  datasets/{dataset_id}/records             dataset_id dataset_record_ids[]
    removeDatasetFromExperiments  POST      write  datasets/{dataset_id}/remove-experiments  dataset_id experiment_ids[]
    setDatasetTags                PATCH     write  datasets/{dataset_id}/tags                dataset_id
    deleteDatasetTag              DELETE    write  datasets/{dataset_id}/tags/{key}          dataset_id
    """),  # noqa: E501  the columns stay aligned

    # --- scorers ---
    *_rows(Group.SCORERS, UNMIRRORED, BOTH, "3.0/mlflow/", """
    deleteScorer             DELETE  write  scorers/delete          experiment_id
    getScorer                GET     read   scorers/get             experiment_id
    listScorers              GET     read   scorers/list            experiment_id experiment_ids[]
    setOnlineScoringConfig   PUT     write  scorers/online-config   experiment_id filter_string
    getOnlineScoringConfigs  GET     read   scorers/online-configs  scorer_ids
    registerScorer           POST    write  scorers/register        experiment_id serialized_scorer
    listScorerVersions       GET     read   scorers/versions        experiment_id
    """),
    *_rows(Group.SCORERS, UNMIRRORED, AJAX, "3.0/mlflow/", """
    invokeScorer  POST  write  scorer/invoke  experiment_id trace_ids[] serialized_scorer
    """),

    # --- issues ---
    *_rows(Group.ISSUES, UNMIRRORED, BOTH, "3.0/mlflow/", """
    createIssue   POST   write  issues             experiment_id source_run_id
    searchIssues  POST   read   issues/search      experiment_id filter_string
    getIssue      GET    read   issues/{issue_id}  issue_id
    updateIssue   PATCH  write  issues/{issue_id}  issue_id
    """),
    *_rows(Group.ISSUES, UNMIRRORED, AJAX, "3.0/mlflow/", """
    invokeIssueDetection  POST  write  issues/invoke  experiment_id trace_ids[]
    """),

    # --- label-schemas ---
    *_rows(Group.LABEL_SCHEMAS, UNMIRRORED, BOTH, "3.0/mlflow/", """
    createLabelSchema     POST    write  label-schemas/create       experiment_id
    deleteLabelSchema     DELETE  write  label-schemas/delete       schema_id
    getLabelSchema        GET     read   label-schemas/get          schema_id
    getLabelSchemaByName  GET     read   label-schemas/get-by-name  experiment_id
    listLabelSchemas      GET     read   label-schemas/list         experiment_id
    updateLabelSchema     PATCH   write  label-schemas/update       schema_id
    """),

    # --- review-queues ---
    *_rows(Group.REVIEW_QUEUES, UNMIRRORED, BOTH, "3.0/mlflow/", """
    createReviewQueue           POST  write  review-queues/create              experiment_id schema_ids[]
    deleteReviewQueue           POST  write  review-queues/delete              queue_id
    getReviewQueue              GET   read   review-queues/get                 queue_id
    getReviewQueueByName        GET   read   review-queues/get-by-name         experiment_id
    getOrCreateUserQueue        POST  write  review-queues/get-or-create-user  experiment_id
    addItemsToReviewQueue       POST  write  review-queues/items/add           queue_id item_ids[]
    listReviewQueueItems        GET   read   review-queues/items/list          queue_id
    removeItemsFromReviewQueue  POST  write  review-queues/items/remove        queue_id item_ids[]
    setReviewQueueItemStatus    POST  write  review-queues/items/set-status    queue_id item_id
    listReviewQueues            GET   read   review-queues/list                experiment_id item_id
    updateReviewQueue           POST  write  review-queues/update              queue_id schema_ids[]
    """),

    # --- artifacts ---
    *_rows(Group.ARTIFACTS, FILES, BOTH, "2.0/mlflow-artifacts/", """
    listProxiedArtifacts     GET     read   artifacts                          path
    downloadArtifact         GET     read   artifacts/{artifact_path:path}     artifact_path
    uploadArtifact           PUT     write  artifacts/{artifact_path:path}     artifact_path
    deleteArtifact           DELETE  write  artifacts/{artifact_path:path}     artifact_path
    abortMultipartUpload     POST    write  mpu/abort/{artifact_path:path}     artifact_path upload_id
    completeMultipartUpload  POST    write  mpu/complete/{artifact_path:path}  artifact_path upload_id
    createMultipartUpload    POST    write  mpu/create/{artifact_path:path}    artifact_path
    getPresignedDownloadUrl  GET     read   presigned/{artifact_path:path}     artifact_path
    """),
    *_rows(Group.ARTIFACTS, PRIMARY, BOTH, "2.0/mlflow/", """
    listArtifacts  GET  read  artifacts/list  run_id run_uuid
    """),
    *_rows(Group.ARTIFACTS, FILES, BOTH, "2.0/mlflow/", """
    createPresignedDownloadUrl  POST  read   artifacts/presigned-download-url  run_id
    createPresignedUploadUrl    POST  write  artifacts/presigned-upload-url    run_id model_id
    """),
    *_rows(Group.ARTIFACTS, FILES, AJAX, "2.0/mlflow/", """
    uploadUiArtifact  POST  write  upload-artifact  run_uuid
    """),
    *_rows(Group.ARTIFACTS, PRIMARY, BARE, "", """
    getArtifact  GET  read  /get-artifact  run_id run_uuid
    """),

    # --- registry:registered-models ---
    *_rows(Group.REGISTERED_MODELS, REGISTRY, BOTH, "2.0/mlflow/", """
    createRegisteredModel     POST      write  registered-models/create  tags[]
    deleteRegisteredModel     DELETE    write  registered-models/delete
    deleteRegisteredModelTag  DELETE    write  registered-models/delete-tag
    getRegisteredModel        GET       read   registered-models/get
    getLatestVersions         GET,POST  read   registered-models/get-latest-versions
    renameRegisteredModel     POST      write  registered-models/rename
    searchRegisteredModels    GET       read   registered-models/search  filter
    setRegisteredModelTag     POST      write  registered-models/set-tag
    updateRegisteredModel     PATCH     write  registered-models/update
    """),

    # --- registry:model-versions ---
    *_rows(Group.MODEL_VERSIONS, REGISTRY, BOTH, "2.0/mlflow/", """
    createModelVersion           POST    write  model-versions/create  source run_id model_id run_link tags[]
    deleteModelVersion           DELETE  write  model-versions/delete
    deleteModelVersionTag        DELETE  write  model-versions/delete-tag
    getModelVersion              GET     read   model-versions/get
    getModelVersionDownloadUri   GET     read   model-versions/get-download-uri
    searchModelVersions          GET     read   model-versions/search  filter
    setModelVersionTag           POST    write  model-versions/set-tag
    transitionModelVersionStage  POST    write  model-versions/transition-stage
    updateModelVersion           PATCH   write  model-versions/update
    """),
    *_rows(Group.MODEL_VERSIONS, REGISTRY, BARE, "", """
    getModelVersionArtifact  GET  read  /model-versions/get-artifact
    """),

    # --- registry:aliases ---
    *_rows(Group.ALIASES, REGISTRY, BOTH, "2.0/mlflow/", """
    setRegisteredModelAlias     POST    write  registered-models/alias
    getModelVersionByAlias      GET     read   registered-models/alias
    deleteRegisteredModelAlias  DELETE  write  registered-models/alias
    """),

    # --- registry:webhooks ---
    *_rows(Group.WEBHOOKS, REGISTRY, BOTH, "2.0/mlflow/", """
    createWebhook  POST    write  webhooks
    listWebhooks   GET     read   webhooks
    getWebhook     GET     read   webhooks/{webhook_id}       webhook_id
    updateWebhook  PATCH   write  webhooks/{webhook_id}       webhook_id
    deleteWebhook  DELETE  write  webhooks/{webhook_id}       webhook_id
    testWebhook    POST    write  webhooks/{webhook_id}/test  webhook_id
    """),

    # --- gateway ---
    *_rows(Group.GATEWAY, PRIMARY, BOTH, "3.0/mlflow/", """
    createBudgetPolicy             POST    write  gateway/budgets/create
    deleteBudgetPolicy             DELETE  write  gateway/budgets/delete                   budget_policy_id
    getBudgetPolicy                GET     read   gateway/budgets/get                      budget_policy_id
    listBudgetPolicies             GET     read   gateway/budgets/list
    updateBudgetPolicy             POST    write  gateway/budgets/update                   budget_policy_id
    listBudgetWindows              GET     read   gateway/budgets/windows
    createEndpointBinding          POST    write  gateway/endpoints/bindings/create        endpoint_id resource_id
    deleteEndpointBinding          DELETE  write  gateway/endpoints/bindings/delete        endpoint_id resource_id
    listEndpointBindings           GET     read   gateway/endpoints/bindings/list          endpoint_id resource_id
    createGatewayEndpoint          POST    write  gateway/endpoints/create                 model_configs[] experiment_id
    deleteGatewayEndpoint          DELETE  write  gateway/endpoints/delete                 endpoint_id
    deleteGatewayEndpointTag       DELETE  write  gateway/endpoints/delete-tag             endpoint_id
    getGatewayEndpoint             GET     read   gateway/endpoints/get                    endpoint_id
    listGatewayEndpoints           GET     read   gateway/endpoints/list                   secret_id
    attachModelToEndpoint          POST    write  gateway/endpoints/models/attach          endpoint_id model_config
    detachModelFromEndpoint        POST    write  gateway/endpoints/models/detach          endpoint_id model_definition_id
    setGatewayEndpointTag          POST    write  gateway/endpoints/set-tag                endpoint_id
    updateGatewayEndpoint          POST    write  gateway/endpoints/update                 endpoint_id model_configs[] experiment_id
    addGuardrailToEndpoint         POST    write  gateway/guardrails/add-to-endpoint       endpoint_id guardrail_id
    createGatewayGuardrail         POST    write  gateway/guardrails/create                scorer_id action_endpoint_id
    deleteGatewayGuardrail         DELETE  write  gateway/guardrails/delete                guardrail_id
    getGatewayGuardrail            GET     read   gateway/guardrails/get                   guardrail_id
    listGatewayGuardrails          GET     read   gateway/guardrails/list
    listEndpointGuardrailConfigs   GET     read   gateway/guardrails/list-for-endpoint     endpoint_id
    removeGuardrailFromEndpoint    DELETE  write  gateway/guardrails/remove-from-endpoint  endpoint_id guardrail_id
    updateEndpointGuardrailConfig  PATCH   write  gateway/guardrails/update-config         endpoint_id guardrail_id
    createGatewayModelDefinition   POST    write  gateway/model-definitions/create         secret_id
    deleteGatewayModelDefinition   DELETE  write  gateway/model-definitions/delete         model_definition_id
    getGatewayModelDefinition      GET     read   gateway/model-definitions/get            model_definition_id
    listGatewayModelDefinitions    GET     read   gateway/model-definitions/list           secret_id
    updateGatewayModelDefinition   POST    write  gateway/model-definitions/update         model_definition_id secret_id
    createGatewaySecret            POST    write  gateway/secrets/create
    deleteGatewaySecret            DELETE  write  gateway/secrets/delete                   secret_id
    getGatewaySecretInfo           GET     read   gateway/secrets/get                      secret_id
    listGatewaySecretInfos         GET     read   gateway/secrets/list
    updateGatewaySecret            POST    write  gateway/secrets/update                   secret_id
    """),  # noqa: E501  the columns stay aligned
    *_rows(Group.GATEWAY, PRIMARY, AJAX, "2.0/mlflow/", """
    sendGatewayProxy  POST  write  gateway-proxy
    readGatewayProxy  GET   read   gateway-proxy
    """),
    *_rows(Group.GATEWAY, PRIMARY, AJAX, "3.0/mlflow/", """
    getGatewayProviderConfig       GET  read  gateway/provider-config
    getGatewaySecretsConfig        GET  read  gateway/secrets/config
    listGatewaySupportedModels     GET  read  gateway/supported-models
    listGatewaySupportedProviders  GET  read  gateway/supported-providers
    """),
    *_rows(Group.GATEWAY, PRIMARY, BARE, "", """
    gatewayAnthropicMessages  POST  write  /gateway/anthropic/v1/messages
    gatewayGeminiGenerate     POST  write  /gateway/gemini/v1beta/models/{endpoint_name}:generateContent
    gatewayGeminiStream       POST  write  /gateway/gemini/v1beta/models/{endpoint_name}:streamGenerateContent
    gatewayChat               POST  write  /gateway/mlflow/v1/chat/completions
    gatewayModels             GET   read   /gateway/mlflow/v1/models
    gatewayOpenaiChat         POST  write  /gateway/openai/v1/chat/completions
    gatewayOpenaiEmbeddings   POST  write  /gateway/openai/v1/embeddings
    gatewayOpenaiResponses    POST  write  /gateway/openai/v1/responses
    gatewayOpenaiCompact      POST  write  /gateway/openai/v1/responses/compact
    gatewayPassthrough        POST  write  /gateway/proxy/{endpoint_name}/{path:path}
    gatewayTypesafeSystemOne  POST  write  /gateway/typesafe/v1/systemone
    gatewayInvocations        POST  write  /gateway/{endpoint_name}/mlflow/invocations
    """),

    # --- mcp-servers ---
    # The order is the server's: names may hold slashes, so the longer template comes first.
    *_rows(Group.MCP_SERVERS, PRIMARY, BOTH, "3.0/mlflow/", """
    createMcpServer       POST    write  mcp-servers
    searchMcpServers      GET     read   mcp-servers
    searchMcpEndpoints    GET     read   mcp-servers/endpoints
    setMcpVersionTag      POST    write  mcp-servers/{name:path}/versions/{version:path}/tags
    deleteMcpVersionTag   DELETE  write  mcp-servers/{name:path}/versions/{version:path}/tags/{key:path}
    getMcpVersion         GET     read   mcp-servers/{name:path}/versions/{version:path}
    updateMcpVersion      PATCH   write  mcp-servers/{name:path}/versions/{version:path}
    deleteMcpVersion      DELETE  write  mcp-servers/{name:path}/versions/{version:path}
    createMcpVersion      POST    write  mcp-servers/{name:path}/versions
    searchMcpVersions     GET     read   mcp-servers/{name:path}/versions
    createMcpEndpoint     POST    write  mcp-servers/{name:path}/endpoints
    getMcpEndpoint        GET     read   mcp-servers/{name:path}/endpoints/{endpoint_id}  endpoint_id
    updateMcpEndpoint     PATCH   write  mcp-servers/{name:path}/endpoints/{endpoint_id}  endpoint_id
    deleteMcpEndpoint     DELETE  write  mcp-servers/{name:path}/endpoints/{endpoint_id}  endpoint_id
    listMcpEndpoints      GET     read   mcp-servers/{name:path}/endpoints
    setMcpServerTag       POST    write  mcp-servers/{name:path}/tags
    deleteMcpServerTag    DELETE  write  mcp-servers/{name:path}/tags/{key:path}
    setMcpAlias           POST    write  mcp-servers/{name:path}/aliases
    getMcpVersionByAlias  GET     read   mcp-servers/{name:path}/aliases/{alias:path}
    deleteMcpAlias        DELETE  write  mcp-servers/{name:path}/aliases/{alias:path}
    getMcpServer          GET     read   mcp-servers/{name:path}
    updateMcpServer       PATCH   write  mcp-servers/{name:path}
    deleteMcpServer       DELETE  write  mcp-servers/{name:path}
    """),

    # --- prompt-optimization ---
    *_rows(Group.PROMPT_OPTIMIZATION, PRIMARY, BOTH, "3.0/mlflow/", """
    createPromptOptimizationJob   POST      write  prompt-optimization/jobs                  experiment_id source_prompt_uri config.dataset_id
    searchPromptOptimizationJobs  GET,POST  read   prompt-optimization/jobs/search           experiment_id
    getPromptOptimizationJob      GET       read   prompt-optimization/jobs/{job_id}         job_id
    deletePromptOptimizationJob   DELETE    write  prompt-optimization/jobs/{job_id}         job_id
    cancelPromptOptimizationJob   POST      write  prompt-optimization/jobs/{job_id}/cancel  job_id
    """),  # noqa: E501  the columns stay aligned

    # --- jobs ---
    *_rows(Group.JOBS, PRIMARY, AJAX, "3.0/", """
    createJob   POST   write  jobs/                 params
    cancelJob   PATCH  write  jobs/cancel/{job_id}  job_id
    searchJobs  POST   read   jobs/search           params
    getJob      GET    read   jobs/{job_id}         job_id
    """),
    *_rows(Group.JOBS, PRIMARY, AJAX, "3.0/mlflow/", """
    invokeGenaiEvaluate  POST   write  genai/evaluate/invoke  experiment_id trace_ids[] run_id
    cancelUiJob          PATCH  write  jobs/cancel/{job_id}   job_id
    getUiJob             GET    read   jobs/{job_id}          job_id
    """),

    # --- workspaces ---
    *_rows(Group.WORKSPACES, PRIMARY, BOTH, "3.0/mlflow/", """
    createWorkspace  POST    write  workspaces                   default_artifact_root
    listWorkspaces   GET     read   workspaces
    getWorkspace     GET     read   workspaces/{workspace_name}  workspace_name
    updateWorkspace  PATCH   write  workspaces/{workspace_name}  workspace_name default_artifact_root
    deleteWorkspace  DELETE  write  workspaces/{workspace_name}  workspace_name
    """),

    # --- assistant ---
    *_rows(Group.ASSISTANT, PRIMARY, AJAX, "3.0/mlflow/", """
    getAssistantConfig         GET    read   assistant/config
    setAssistantConfig         PUT    write  assistant/config
    sendAssistantMessage       POST   write  assistant/message
    listAssistantProviders     GET    read   assistant/providers
    checkAssistantProvider     GET    read   assistant/providers/{provider}/health
    listAssistantModels        GET    read   assistant/providers/{provider}/models
    updateAssistantSession     PATCH  write  assistant/sessions/{session_id}              session_id
    answerAssistantPermission  POST   write  assistant/sessions/{session_id}/permission   session_id
    streamAssistantSession     GET    read   assistant/sessions/{session_id}/stream       session_id
    sendAssistantToolResult    POST   write  assistant/sessions/{session_id}/tool-result  session_id
    installAssistantSkills     POST   write  assistant/skills/install
    """),

    # --- misc ---
    *_rows(Group.MISC, PRIMARY, BOTH, "3.0/mlflow/", """
    serverInfo  GET  health  server-info
    """),
    *_rows(Group.MISC, PRIMARY, AJAX, "3.0/mlflow/", """
    deleteDemo    POST  write  demo/delete
    generateDemo  POST  write  demo/generate
    """),
    *_rows(Group.MISC, PRIMARY, BARE, "", """
    graphql        GET,POST  read    /graphql  query variables
    health         GET       health  /health
    serverMetrics  GET       health  /metrics
    """),
    *_rows(Group.MISC, LOCAL, BARE, "", """
    version  GET  health  /version
    """),

    # --- auth ---
    *_rows(Group.AUTH, PRIMARY, BOTH, "2.0/mlflow/", """
    createUser          POST    write  users/create
    getCurrentUser      GET     read   users/current
    deleteUser          DELETE  write  users/delete
    getUser             GET     read   users/get
    listUsers           GET     read   users/list
    updateUserAdmin     PATCH   write  users/update-admin
    updateUserPassword  PATCH   write  users/update-password
    """),
    *_rows(Group.AUTH, PRIMARY, BOTH, "3.0/mlflow/", """
    assignRole                  POST    write  roles/assign
    createRole                  POST    write  roles/create
    deleteRole                  DELETE  write  roles/delete
    getRole                     GET     read   roles/get
    listRoles                   GET     read   roles/list
    addRolePermission           POST    write  roles/permissions/add
    listRolePermissions         GET     read   roles/permissions/list
    removeRolePermission        DELETE  write  roles/permissions/remove
    updateRolePermission        PATCH   write  roles/permissions/update
    unassignRole                DELETE  write  roles/unassign
    updateRole                  PATCH   write  roles/update
    listRoleUsers               GET     read   roles/users/list
    listCurrentUserPermissions  GET     read   users/current/permissions
    getUserPermission           GET     read   users/permissions/get
    grantUserPermission         POST    write  users/permissions/grant
    listUserPermissions         GET     read   users/permissions/list
    revokeUserPermission        POST    write  users/permissions/revoke
    listUserRoles               GET     read   users/roles/list
    """),
    *_rows(Group.AUTH, PRIMARY, API, "2.0/mlflow/", """
    createUserFromUi  POST  write  users/create-ui
    """),
    *_rows(Group.AUTH, PRIMARY, BARE, "", """
    signup  GET  ui  /signup
    """),

    # --- ui ---
    *_rows(Group.UI, PRIMARY, AJAX, "3.0/mlflow/", """
    uiTelemetry  GET,POST  ui  ui-telemetry
    """),
    *_rows(Group.UI, PRIMARY, BARE, "", """
    uiIndex   GET  ui  /
    uiBuild   GET  ui  /build/{filename:path}
    uiStatic  GET  ui  /static-files/{path:path}
    """),
)
# fmt: on

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
# The "number of segments" of a template with a {x:path}. The longest pattern backtracks quadratically
# (25 ms for 8 KB made for it); the server's limit on a request line bounds that, here as in MLflow's own router.
_OPEN: Final = -1
_PARAMETER: Final = re.compile(r"\{(\w+)(:path)?\}")


@dataclass(frozen=True, slots=True)
class _Template:
    route: Route
    pattern: re.Pattern[str]


def _methods(route: Route) -> Iterator[str]:
    yield from route.methods
    if "GET" in route.methods:
        yield "HEAD"


def _paths(route: Route) -> tuple[str, ...]:
    if route.ajax is BARE:
        return (route.path,)
    return (f"/api/{route.path}", f"/ajax-api/{route.path}")


def _pattern(path: str) -> re.Pattern[str]:
    pieces = _PARAMETER.split(path)  # literal, then (name, ":path" or None, literal) for each parameter
    pattern = re.escape(pieces[0])
    for at in range(1, len(pieces), 3):
        name, is_open, literal = pieces[at : at + 3]
        pattern += f"(?P<{name}>{'.+' if is_open else '[^/]+'}){re.escape(literal)}"
    return re.compile(pattern, re.DOTALL)


def _static() -> dict[tuple[str, str], Match]:
    """Every spelling of every path without parameters, so that the common case allocates nothing."""
    return {
        (method, path): Match(route, _NOTHING)
        for route in ROUTES
        if "{" not in route.path
        for path in _paths(route)
        for method in _methods(route)
    }


def _templates() -> dict[tuple[str, int], list[_Template]]:
    """The other rows, under /api only, by method and number of segments, in the order of the table."""
    found: dict[tuple[str, int], list[_Template]] = {}
    for route in ROUTES:
        path = _paths(route)[0]
        if "{" in path:
            slashes = _OPEN if ":path}" in path else path.count("/")
            for method in _methods(route):
                found.setdefault((method, slashes), []).append(_Template(route, _pattern(path)))
    return found


_STATIC: Final = _static()
_TEMPLATES: Final = _templates()


def classify(method: str, raw_path: str) -> Match | None:
    """Find a request's row by the path as received, without the query; None if no row fits. Never raises."""
    found = _STATIC.get((method, raw_path))
    if found is not None:
        return found
    if "%" not in raw_path:
        return _search(method, raw_path)
    path = unquote(raw_path)
    return _STATIC.get((method, path)) or _search(method, path)


def _search(method: str, path: str) -> Match | None:
    path = "/api/" + path.removeprefix("/ajax-api/") if path.startswith("/ajax-api/") else path
    fixed = _TEMPLATES.get((method, path.count("/")), ())
    for template in chain(fixed, _TEMPLATES.get((method, _OPEN), ())):
        if hit := template.pattern.fullmatch(path):
            return Match(template.route, hit.groupdict())
    return None
