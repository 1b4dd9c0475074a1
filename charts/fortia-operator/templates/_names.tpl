{{- define "fortia.labels" -}}
app.kubernetes.io/name: fortia-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "fortia.selector" -}}
app.kubernetes.io/name: fortia-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fortia.account" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{/* Cluster-scoped objects carry the namespace too, so that two releases of one name do not meet. */}}
{{- define "fortia.clusterName" -}}
{{ .Release.Namespace }}-{{ .Release.Name }}
{{- end }}
