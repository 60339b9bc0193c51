{{- define "dualtrack.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "dualtrack.selector" -}}
app.kubernetes.io/name: dualtrack
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: central
{{- end -}}

{{- define "dualtrack.labels" -}}
app.kubernetes.io/name: dualtrack
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* dualtrack.yaml. Takes the root and the part, "central" or "sidecar". What the chart writes wins. */ -}}
{{- define "dualtrack.config" -}}
{{- $root := .root -}}
{{- $name := include "dualtrack.name" $root -}}
{{- $service := list $name (printf "%s.${POD_NAMESPACE}" $name) (printf "%s.${POD_NAMESPACE}.svc" $name) (printf "%s.${POD_NAMESPACE}.svc.cluster.local" $name) -}}
{{- $own := dict
  "admin" (dict "host" $root.Values.listenHost "port" 5001 "token" "${DUALTRACK_ADMIN_TOKEN}")
  "store" (dict "url" "sqlite:///var/lib/dualtrack/journal.db")
  "spool" (dict "dir" "/var/lib/dualtrack/spool")
  "shutdown" (dict "grace" (printf "%ds" (int $root.Values.shutdown.graceSeconds)) "deliveries" (printf "%ds" (int $root.Values.shutdown.deliverySeconds)))
-}}
{{- $given := deepCopy $root.Values.config -}}
{{- if eq .part "central" -}}
{{- $_ := set $own "listen" (dict "host" $root.Values.listenHost "port" 5000) -}}
{{- $_ := set $own "allowed_hosts" (concat (list "${POD_IP}") $service $root.Values.allowedHosts) -}}
{{- if not (or $given.auth $given.insecure) -}}
{{- $_ := set $given "auth" (dict "type" "bearer" "token" "${DUALTRACK_TOKEN}") -}}
{{- end -}}
{{- else -}}
{{- $given = omit $given "auth" "insecure" -}}
{{- $_ := set $own "listen" (dict "host" "127.0.0.1" "port" 5000) -}}
{{- $_ := set $own "allowed_hosts" (list "${POD_IP}") -}}
{{- end -}}
{{- merge $own $given (dict "log" (dict "format" "json")) | toYaml -}}
{{- end -}}

{{- /* Our container. Takes the root, the part, and how many seconds the preStop hook may take. */ -}}
{{- define "dualtrack.container" -}}
{{- $root := .root -}}
{{- $isSidecar := eq .part "sidecar" -}}
{{- $prefix := ternary "dualtrack-" "" $isSidecar -}}
name: dualtrack
{{- if $isSidecar }}
restartPolicy: Always
{{- end }}
image: "{{ required "image.repository has to name the registry that you push your image to" $root.Values.image.repository }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}"
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args: [serve]
env:
  - name: DUALTRACK_CONFIG
    value: /etc/dualtrack/dualtrack.yaml
  # The kubelet's probes and Prometheus call the pod by its address: `allowed_hosts` has to know it.
  - name: POD_IP
    valueFrom:
      fieldRef:
        fieldPath: status.podIP
  - name: POD_NAMESPACE
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
  - name: HOME
    value: /tmp
  {{- with $root.Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
envFrom:
  - secretRef:
      name: {{ $root.Values.secretName }}
ports:
  {{- if not $isSidecar }}
  - name: mlflow
    containerPort: 5000
  {{- end }}
  - name: {{ $prefix }}admin
    containerPort: 5001
startupProbe:
  httpGet:
    path: {{ ternary "/readyz" "/livez" $isSidecar }}
    port: {{ $prefix }}admin
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet:
    path: /livez
    port: {{ $prefix }}admin
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- if not $isSidecar }}
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}
lifecycle:
  preStop:
    exec:
      command: [dualtrack, drain, --timeout, {{ .drainSeconds }}s]
resources:
  {{- $resources := deepCopy $root.Values.resources }}
  {{- if $isSidecar }}
  {{- /* A request, and no limit on a volume: the kubelet evicts a pod that is over a limit, the training with it. */}}
  {{- $resources = merge $resources (dict "requests" (dict "ephemeral-storage" $root.Values.sidecar.journalSize)) }}
  {{- end }}
  {{- toYaml $resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
  - name: {{ $prefix }}config
    mountPath: /etc/dualtrack
    readOnly: true
  - name: {{ $prefix }}journal
    mountPath: /var/lib/dualtrack
  - name: {{ $prefix }}tmp
    mountPath: /tmp
  {{- with $root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* For pods of your own charts, below initContainers: include "dualtrack.sidecar" of this chart's context. */ -}}
{{- define "dualtrack.sidecar" -}}
{{- include "dualtrack.container" (dict "root" . "part" "sidecar" "drainSeconds" .Values.sidecar.drainSeconds) -}}
{{- end -}}

{{- /* The same, below volumes. */ -}}
{{- define "dualtrack.sidecarVolumes" -}}
- name: dualtrack-config
  configMap:
    name: {{ include "dualtrack.name" . }}-sidecar
- name: dualtrack-journal  # gone with the pod
  emptyDir: {}
- name: dualtrack-tmp
  emptyDir: {}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* terminationGracePeriodSeconds. Takes the root, and how many seconds the preStop hook may take. */ -}}
{{- define "dualtrack.grace" -}}
{{- add .drainSeconds .root.Values.shutdown.graceSeconds .root.Values.shutdown.deliverySeconds 15 -}}
{{- end -}}
