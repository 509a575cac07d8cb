{{/* The name of the release's objects. */}}
{{- define "refcut.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{ $name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* The labels that pods are selected by. Takes a dict of `root` and `component`. */}}
{{- define "refcut.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* All labels. Takes the same. */}}
{{- define "refcut.labels" -}}
{{ include "refcut.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "refcut.serviceAccount" -}}
{{ .Values.serviceAccount.existingName | default (include "refcut.name" .) }}
{{- end }}

{{/* The image. Takes a dict of `root` and `gpu`. */}}
{{- define "refcut.image" -}}
{{- $image := .root.Values.image -}}
{{- $tag := $image.tag | default .root.Chart.AppVersion -}}
{{- if .gpu }}{{ $tag = $image.cudaTag | default (printf "%s-cuda" $tag) }}{{ end -}}
{{ $image.repository }}:{{ $tag }}
{{- end }}

{{/*
The variables of a container. Values of the secret are referred to one by one, so that a pod without Redis or database does
not start and its events name the missing key.
*/}}
{{- define "refcut.env" -}}
{{- $secret := required "existingSecret is required: a secret with REFCUT_REDIS_URL and REFCUT_DATABASE_URL" .Values.existingSecret -}}
{{- $required := list "REFCUT_REDIS_URL" "REFCUT_DATABASE_URL" -}}
{{- $optional := list "REFCUT_BASIC_AUTH_USER" "REFCUT_BASIC_AUTH_PASSWORD" "REFCUT_WEBHOOK_SECRET" "REFCUT_ACCESS_TOKEN" -}}
{{- $fixed := list "REFCUT_HOST" "REFCUT_PORT" "REFCUT_STATE_DIR" "REFCUT_MODEL_STORE" "REFCUT_WORKERS" -}}
{{- range $name := concat $required $optional }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ $name }}
      {{- if has $name $optional }}
      optional: true
      {{- end }}
{{- end }}
- name: REFCUT_MODEL_STORE
  value: {{ .Values.modelStore.url | default "/models" | quote }}
- name: TMPDIR
  value: /tmp
- name: MPLCONFIGDIR
  value: /tmp/matplotlib
{{- range $name, $value := .Values.settings }}
{{- if has $name (concat $required $optional) }}{{ fail (printf "settings.%s is a secret: it belongs into existingSecret" $name) }}{{ end }}
{{- if has $name $fixed }}{{ fail (printf "settings.%s is set by the chart" $name) }}{{ end }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/*
A pod. Takes a dict of
  root       the top context
  component  web, worker or trainer
  of         its values
  args       arguments of `refcut`
  stop       seconds from SIGTERM to SIGKILL
  state      whether /state is a volume of the workload's own, named `state`; else it is temporary
*/}}
{{- define "refcut.pod" -}}
{{- $values := .root.Values -}}
{{- $gpu := and (hasKey .of "gpu") .of.gpu -}}
metadata:
  labels:
    {{- include "refcut.labels" . | nindent 4 }}
  {{- with .of.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "refcut.serviceAccount" .root }}
  automountServiceAccountToken: false
  # Else a service named `refcut` puts REFCUT_PORT=tcp://... into every pod of the namespace.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .stop }}
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with merge (dict) .of.nodeSelector (ternary $values.gpu.nodeSelector (dict) $gpu) }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with concat .of.tolerations (ternary $values.gpu.tolerations (list) $gpu) }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .of.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "refcut.image" (dict "root" .root "gpu" $gpu) }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args: {{ toJson .args }}
      env:
        {{- include "refcut.env" .root | trim | nindent 8 }}
        {{- if $gpu }}
        - name: REFCUT_DEVICE
          value: cuda
        {{- end }}
      {{- with $values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      {{- $resources := deepCopy .of.resources }}
      {{- if $gpu }}
      {{- $_ := set $resources "limits" (merge (dict $values.gpu.resource 1) ($resources.limits | default dict)) }}
      {{- end }}
      resources:
        {{- toYaml $resources | nindent 8 }}
      {{- if eq .component "web" }}
      ports:
        - {name: http, containerPort: 9090}
      # Redis or a database that is down is no reason to restart a web server.
      livenessProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 10
        timeoutSeconds: 3
      startupProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 2
        failureThreshold: 60
      # 503 without Redis, database or a ready worker.
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        timeoutSeconds: 4
      # The service still sends requests for a moment after the pod is asked to end.
      lifecycle:
        preStop:
          exec: {command: [sleep, "5"]}
      {{- end }}
      volumeMounts:
        - {name: state, mountPath: /state}
        - {name: tmp, mountPath: /tmp}
        {{- if not $values.modelStore.url }}
        - {name: models, mountPath: /models}
        {{- end }}
  volumes:
    {{- if not .state }}
    - name: state
      emptyDir: {}
    {{- end }}
    - name: tmp
      emptyDir: {{ if eq .component "web" }}{sizeLimit: {{ .of.tmpSize }}}{{ else }}{}{{ end }}
    {{- if not $values.modelStore.url }}
    - name: models
      persistentVolumeClaim:
        claimName: {{ $values.modelStore.existingClaim | default (printf "%s-models" (include "refcut.name" .root)) }}
    {{- end }}
{{- end }}
