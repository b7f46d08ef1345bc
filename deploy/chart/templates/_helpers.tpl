{{- define "lockstep.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "lockstep.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "lockstep.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "lockstep.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "lockstep.selector" -}}
app.kubernetes.io/name: {{ include "lockstep.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lockstep.labels" -}}
{{ include "lockstep.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "lockstep.serviceAccount" -}}
{{- default (ternary (include "lockstep.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* The warming job's own, so that it is an operator and the service is not. */}}
{{- define "lockstep.warmServiceAccount" -}}
{{- ternary (printf "%s-warm" (include "lockstep.fullname" .)) (include "lockstep.serviceAccount" .) .Values.serviceAccount.create -}}
{{- end -}}

{{/* Not empty where the API server is asked for the keys of tokens. */}}
{{- define "lockstep.asksForKeys" -}}
{{- if and .Values.auth.kubernetes (not .Values.auth.issuer) }}true{{ end -}}
{{- end -}}

{{/* Not empty where the API server is asked for anything: for keys, for Jobs of builders. */}}
{{- define "lockstep.asksApiServer" -}}
{{- if or (include "lockstep.asksForKeys" .) .Values.builders.enabled }}true{{ end -}}
{{- end -}}

{{- define "lockstep.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end -}}

{{- define "lockstep.claim" -}}
{{- default (printf "%s-data" (include "lockstep.fullname" .)) .Values.persistence.existingClaim -}}
{{- end -}}

{{- define "lockstep.webhookSecret" -}}
{{- default (printf "%s-webhook" (include "lockstep.fullname" .)) .Values.webhook.tls.secret -}}
{{- end -}}

{{/* What of the Pods' spec all of them have: "restricted" of the Pod Security Standards. */}}
{{- define "lockstep.podSecurity" -}}
# Where a token is needed, that one is mounted.
automountServiceAccountToken: false
# A Service named lockstep would inject LOCKSTEP_PORT and its like.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What all containers have. */}}
{{- define "lockstep.container" -}}
image: {{ include "lockstep.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* The settings that the service, gc and fsck share: where the stores are. */}}
{{- define "lockstep.storeEnv" -}}
- {name: LOCKSTEP_DATA_DIR, value: /var/lib/lockstep}
{{- if eq .Values.profile "shared" }}
- name: LOCKSTEP_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.database.secret.name }}, key: {{ .Values.database.secret.key }}}}
- {name: LOCKSTEP_BLOB_URL, value: {{ .Values.objectStorage.url | quote }}}
{{- with .Values.objectStorage.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- with .Values.objectStorage.region }}
- {name: AWS_REGION, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- /* A large number is a float to Helm, and must not become 1e+09. */}}
- {name: LOCKSTEP_{{ $name | upper }}, value: {{ ternary (join " " $value) (kindIs "float64" $value | ternary (toJson $value) (toString $value)) (kindIs "slice" $value) | quote }}}
{{- end }}
{{- if .Values.trustedCertificates.configMap }}
- {name: SSL_CERT_FILE, value: /etc/lockstep/trusted/{{ .Values.trustedCertificates.key }}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "lockstep.storeEnvFrom" -}}
{{- if and (eq .Values.profile "shared") .Values.objectStorage.secret }}
envFrom:
  - secretRef: {name: {{ .Values.objectStorage.secret }}}
{{- end }}
{{- end -}}

{{- define "lockstep.storeMounts" -}}
- {name: data, mountPath: /var/lib/lockstep}
- {name: tmp, mountPath: /tmp}
{{- if .Values.trustedCertificates.configMap }}
- {name: trusted, mountPath: /etc/lockstep/trusted, readOnly: true}
{{- end }}
{{- end -}}

{{- define "lockstep.storeVolumes" -}}
- name: data
{{- if eq .Values.profile "embedded" }}
  persistentVolumeClaim: {claimName: {{ include "lockstep.claim" . }}}
{{- else }}
  emptyDir: {sizeLimit: {{ .Values.scratch.sizeLimit }}}
{{- end }}
- {name: tmp, emptyDir: {sizeLimit: 1Gi}}
{{- if .Values.trustedCertificates.configMap }}
- {name: trusted, configMap: {name: {{ .Values.trustedCertificates.configMap }}}}
{{- end }}
{{- end -}}

{{/* A CronJob of the stores (gc, fsck): the dict has root, job (its values), name and args. */}}
{{- define "lockstep.keepingJob" -}}
{{- $root := .root -}}
{{- $labels := include "lockstep.labels" $root -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "lockstep.fullname" $root }}-{{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  {{- include "lockstep.cron" . | nindent 2 }}
  jobTemplate:
    spec:
      {{- include "lockstep.job" . | nindent 6 }}
      template:
        metadata:
          labels: {{- $labels | nindent 12 }}
            app.kubernetes.io/component: {{ .name }}
            {{- with $root.Values.podLabels }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        spec:
          restartPolicy: Never
          serviceAccountName: {{ include "lockstep.serviceAccount" $root }}
          {{- include "lockstep.podSecurity" $root | nindent 10 }}
          {{- if eq $root.Values.profile "embedded" }}
          # The volume is one node's at a time: the job goes where the service is.
          affinity:
            podAffinity:
              requiredDuringSchedulingIgnoredDuringExecution:
                - topologyKey: kubernetes.io/hostname
                  labelSelector:
                    matchLabels: {{- include "lockstep.selector" $root | nindent 22 }}
                      app.kubernetes.io/component: service
          {{- end }}
          containers:
            - name: {{ .name }}
              {{- include "lockstep.container" $root | nindent 14 }}
              args: {{ toJson .args }}
              env:
                {{- include "lockstep.storeEnv" $root | nindent 16 }}
              {{- with include "lockstep.storeEnvFrom" $root }}
              {{- . | nindent 14 }}
              {{- end }}
              resources: {{- toYaml $root.Values.jobs.resources | nindent 16 }}
              volumeMounts:
                {{- include "lockstep.storeMounts" $root | nindent 16 }}
          volumes:
            {{- include "lockstep.storeVolumes" $root | nindent 12 }}
{{- end -}}

{{- define "lockstep.cron" -}}
schedule: {{ .job.schedule | quote }}
concurrencyPolicy: Forbid
startingDeadlineSeconds: {{ .root.Values.jobs.startingDeadlineSeconds }}
successfulJobsHistoryLimit: {{ .root.Values.jobs.successfulJobsHistoryLimit }}
failedJobsHistoryLimit: {{ .root.Values.jobs.failedJobsHistoryLimit }}
{{- end -}}

{{- define "lockstep.job" -}}
activeDeadlineSeconds: {{ .job.deadlineSeconds | int64 }}
backoffLimit: {{ .root.Values.jobs.backoffLimit }}
# Trying again mends none of these: damage that was found (1), bad usage (64), requirements that nothing satisfies (65), no
# access (77).
podFailurePolicy:
  rules:
    - action: FailJob
      onExitCodes: {containerName: {{ .name }}, operator: In, values: [1, 64, 65, 77]}
{{- end -}}
